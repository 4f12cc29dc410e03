"""Softmax before operator set 13: one sum over all axes from `axis` on."""

from __future__ import annotations

import math
from typing import Any

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


def _flat(op: str) -> OnnxMapping:
    def build(context: NodeContext, node: Any) -> Any:
        x, axis = context.x(), context.attr_int("axis", 1)
        axis = axis + len(x.shape) if axis < 0 else axis
        if axis == len(x.shape) - 1:
            return context.result(op, x, axis=-1)
        rows = math.prod(x.shape[:axis])
        matrix = context.emit("reshape", x, shape=(rows, math.prod(x.shape[axis:])))
        return context.result("reshape", context.emit(op, matrix, axis=-1), shape=x.shape)

    return OnnxMapping(until=12, build=build)


NODES = {"LogSoftmax": _flat("log_softmax"), "Softmax": _flat("softmax")}
