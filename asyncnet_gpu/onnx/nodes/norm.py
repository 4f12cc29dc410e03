"""Normalisations that ONNX does not define as functions of simpler nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


def _batch_norm(context: NodeContext, node: Any) -> Any:
    if context.opset >= 14 and context.attr_int("training_mode", 0):
        return _batch_norm_training(context)
    if context.opset < 9 and not context.attr_int("spatial", 1):
        context.unsupported("BatchNormalization with statistics for every position")
    x, *stats = context.tensors()
    stats = [_like(context, s, x) for s in stats]
    made = context.result("batch_norm", x, *stats, epsilon=context.attr_float("epsilon", 1e-5))
    # Older operator sets list outputs of training: what inference makes of them are the inputs.
    return (*made, stats[2], stats[3], stats[2], stats[3])[: context.n_outputs]


def _like(context: NodeContext, value: Any, x: Any) -> Any:
    same = value.dtype == x.dtype
    return value if same else context.emit("cast", value, dtype=np.dtype(x.dtype).name)


def _batch_norm_training(context: NodeContext) -> Any:
    x, scale, bias, mean, var = context.tensors()
    axes = tuple(i for i in range(len(x.shape)) if i != 1)
    now_mean = context.emit("reduce_mean", x, axes=axes, keepdims=False)
    shape = (-1, *[1] * (len(x.shape) - 2))
    away = context.emit("sub", x, context.emit("reshape", now_mean, shape=shape))
    square = context.emit("mul", away, away)
    now_var = context.emit("reduce_mean", square, axes=axes, keepdims=False)
    made = context.result("batch_norm", x, scale, bias, now_mean, now_var,
                          epsilon=context.attr_float("epsilon", 1e-5))  # fmt: skip
    momentum = np.asarray(context.attr_float("momentum", 0.9), x.dtype)
    running = []
    for old, now in ((mean, now_mean), (var, now_var)):
        kept = context.emit("mul", _like(context, old, x), momentum)
        new = context.emit("mul", now, np.asarray(1 - momentum, x.dtype))
        running.append(context.emit("add", kept, new))
    return (*made, *running)[: context.n_outputs]


def _lp_normalization(context: NodeContext, node: Any) -> Any:
    x, axis, p = context.x(), context.attr_int("axis", -1), context.attr_int("p", 2)
    if p == 1:
        total = context.emit("reduce_sum", context.emit("abs", x), axes=(axis,), keepdims=True)
    else:
        square = context.emit("reduce_sum", context.emit("mul", x, x), axes=(axis,), keepdims=True)
        total = context.emit("sqrt", square)
    zero, one = np.zeros((), x.dtype), np.ones((), x.dtype)
    # A vector of zeros stays one.
    safe = context.emit("where", context.emit("equal", total, zero), one, total)
    return context.result("div", x, safe)


def _hardmax(context: NodeContext, node: Any) -> Any:
    x = context.x()
    axis = context.attr_int("axis", 1 if context.opset < 13 else -1)
    shape = tuple(x.shape)
    if context.opset < 13:
        rows = int(np.prod(shape[:axis], dtype=np.int64))
        x, axis = context.emit("reshape", x, shape=(rows, -1)), 1
    axis %= max(1, len(x.shape))
    _, place = context.emit("top_k", x, k=1, axis=axis)
    numbers = np.arange(x.shape[axis]).reshape(-1, *[1] * (len(x.shape) - 1 - axis))
    hit = context.emit("equal", place, numbers)
    return context.result(
        "reshape", context.emit("cast", hit, dtype=np.dtype(x.dtype).name), shape=shape
    )


NODES = {
    "BatchNormalization": OnnxMapping(build=_batch_norm),
    "Hardmax": OnnxMapping(build=_hardmax),
    "LpNormalization": OnnxMapping(build=_lp_normalization),
}
