"""Order along an axis: TopK, running sums, triangles, one-hot coding."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


def _top_k(context: NodeContext, node: Any) -> Any:
    k = (context.attr_int("k"),) if context.opset < 10 else context.known_ints(1, "k")
    if len(k) != 1:
        context.fail("k", expected="one number", got=len(k), remedy="The file is broken.")
    return context.result(
        "top_k", context.x(), k=k[0], axis=context.attr_int("axis", -1),
        largest=bool(context.attr_int("largest", 1)),
    )  # fmt: skip


def _cumulative(op: str) -> OnnxMapping:
    def build(context: NodeContext, node: Any) -> Any:
        return context.result(
            op, context.x(), axis=int(context.number(1, "axis")),
            exclusive=bool(context.attr_int("exclusive", 0)),
            reverse=bool(context.attr_int("reverse", 0)),
        )  # fmt: skip

    return OnnxMapping(since=11, build=build)


def _trilu(context: NodeContext, node: Any) -> Any:
    k = int(context.number(1, "k")) if context.has(1) else 0
    return context.result("triangle", context.x(), k=k, upper=bool(context.attr_int("upper", 1)))


def _einsum(context: NodeContext, node: Any) -> Any:
    return context.result("einsum", *context.tensors(), equation=context.attr_str("equation"))


def _one_hot(context: NodeContext, node: Any) -> Any:
    """Compare the places with each number: on where equal, off elsewhere."""
    places, values = context.x(0), context.x(2)
    depth = int(context.number(1, "depth"))
    context.importer.budget.tensor((*places.shape, depth), 8, context.where)
    rank = len(places.shape) + 1
    axis = context.attr_int("axis", -1)
    axis = axis + rank if axis < 0 else axis
    if not 0 <= axis < rank:
        context.fail("attribute 'axis'", expected=f"{-rank}..{rank - 1}", got=axis,
                     remedy="The file is broken.")  # fmt: skip
    whole = context.emit("cast", places, dtype="int64")
    size = np.asarray(depth, np.int64)
    # Places from the end are negative; those further out stay out of range.
    turned = context.emit("where", context.emit("less", whole, np.asarray(0, np.int64)),
                          context.emit("add", whole, size), whole)  # fmt: skip
    numbers = np.arange(depth).reshape(-1, *[1] * (rank - 1 - axis))
    hit = context.emit("equal", context.emit("unsqueeze", turned, axes=(axis,)), numbers)
    off = context.emit("slice", values, starts=(0,), ends=(1,), axes=(0,))
    on = context.emit("slice", values, starts=(1,), ends=(2,), axes=(0,))
    return context.result("where", hit, on, off)


NODES = {
    "CumProd": _cumulative("cumprod"),
    "CumSum": _cumulative("cumsum"),
    "Einsum": OnnxMapping(since=12, build=_einsum),
    "OneHot": OnnxMapping(since=9, build=_one_hot),
    "TopK": OnnxMapping(build=_top_k),
    "Trilu": OnnxMapping(since=14, build=_trilu),
}
