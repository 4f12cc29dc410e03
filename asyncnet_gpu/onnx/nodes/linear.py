"""Matrix products: attribute names of ONNX, broadcasting of older operator sets."""

from __future__ import annotations

from typing import Any

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


def _gemm(context: NodeContext, node: Any) -> Any:
    return context.result(
        "gemm", *context.tensors(), alpha=context.attr_float("alpha", 1.0),
        beta=context.attr_float("beta", 1.0), trans_a=bool(context.attr_int("transA", 0)),
        trans_b=bool(context.attr_int("transB", 0)),
    )  # fmt: skip


NODES = {"Gemm": OnnxMapping(build=_gemm)}
