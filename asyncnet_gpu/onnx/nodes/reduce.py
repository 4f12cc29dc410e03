"""Reductions: axes as attribute or as input, types that the operators do not take, empty sets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


def _axes(context: NodeContext, since_input: int) -> tuple[int, ...] | None:
    """Return the axes to reduce, None for all."""
    if context.opset < since_input:
        found = context.attr_ints("axes", None)
        return tuple(found) if found else None
    axes = context.known_ints(1, "axes") if context.has(1) else ()
    if not axes and not context.attr_int("noop_with_empty_axes", 0):
        return None
    return axes


def _empty_extremum(context: NodeContext, x: Any, attrs: dict[str, Any], largest: bool) -> Any:
    """Return what an extremum of nothing is: the end of the dtype's range on the other side."""
    axes = range(len(x.shape)) if attrs["axes"] is None else attrs["axes"]
    reduced = {a % len(x.shape) for a in axes}
    if attrs["keepdims"]:
        shape = tuple(1 if a in reduced else e for a, e in enumerate(x.shape))
    else:
        shape = tuple(e for a, e in enumerate(x.shape) if a not in reduced)
    dtype = np.dtype(x.dtype)
    value: Any = not largest
    if dtype.kind == "f":
        value = -np.inf if largest else np.inf
    elif dtype.kind != "b":
        value = np.iinfo(dtype).min if largest else np.iinfo(dtype).max
    nbytes = context.importer.budget.tensor(shape, dtype.itemsize, context.where)
    context.importer.budget.constant(nbytes, context.where)
    return np.full(shape, value, dtype)


def _is_empty(x: Any, axes: tuple[int, ...] | None) -> bool:
    rank = len(x.shape)
    return 0 in (x.shape if axes is None else [x.shape[a] for a in axes if -rank <= a < rank])


def _extremum(op: str, largest: bool) -> OnnxMapping:
    def build(context: NodeContext, node: Any) -> Any:
        x = context.x()
        axes = _axes(context, 18)
        attrs = {"axes": axes, "keepdims": bool(context.attr_int("keepdims", 1))}
        if np.dtype(x.dtype).kind == "b":
            if _is_empty(x, axes):
                return _empty_extremum(context, x, attrs, largest)
            number = context.emit(op, context.emit("cast", x, dtype="uint8"), **attrs)
            return context.result("cast", number, dtype="bool")
        if _is_empty(x, axes):
            return _empty_extremum(context, x, attrs, largest)
        return context.result(op, x, **attrs)

    return OnnxMapping(build=build)


def _reduction(op: str, since_input: int = 18, *, floats: bool = False) -> OnnxMapping:
    """One of our reductions; `floats` for those that integers take a detour through floats for."""

    def build(context: NodeContext, node: Any) -> Any:
        x = context.x()
        dtype = np.dtype(x.dtype)
        attrs = {
            "axes": _axes(context, since_input), "keepdims": bool(context.attr_int("keepdims", 1)),
        }  # fmt: skip
        if not floats or dtype.kind == "f":
            return context.result(op, x, **attrs)
        if op == "reduce_mean" and math.prod(x.shape) == 0:
            context.unsupported("a mean of no integers")
        wide = context.emit(op, context.emit("cast", x, dtype="float64"), **attrs)
        return context.result("cast", wide, dtype=dtype.name)

    return OnnxMapping(build=build)


def _arg(op: str) -> OnnxMapping:
    def build(context: NodeContext, node: Any) -> Any:
        return context.result(
            op, context.x(), axis=context.attr_int("axis", 0),
            keepdims=bool(context.attr_int("keepdims", 1)),
            select_last_index=bool(context.attr_int("select_last_index", 0)),
        )  # fmt: skip

    return OnnxMapping(build=build)


NODES = {
    "ArgMax": _arg("argmax"),
    "ArgMin": _arg("argmin"),
    "ReduceL1": _reduction("reduce_l1"),
    "ReduceL2": _reduction("reduce_l2", floats=True),
    "ReduceLogSum": _reduction("reduce_log_sum", floats=True),
    "ReduceLogSumExp": _reduction("reduce_log_sum_exp", floats=True),
    "ReduceMax": _extremum("reduce_max", True),
    "ReduceMean": _reduction("reduce_mean", floats=True),
    "ReduceMin": _extremum("reduce_min", False),
    "ReduceProd": _reduction("reduce_prod"),
    "ReduceSum": _reduction("reduce_sum", 13),
    "ReduceSumSquare": _reduction("reduce_sum_square"),
}
