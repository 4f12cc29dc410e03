"""Elementwise nodes that differ from our operators: several inputs, limits as inputs, types."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from asyncnet_gpu.blob import Blob
from asyncnet_gpu.onnx.context import NodeContext, Tensor
from asyncnet_gpu.ops.base import OnnxMapping


def _many(op: str) -> OnnxMapping:
    """A node with any number of inputs: a chain of binary operators."""

    def build(context: NodeContext, node: Any) -> Any:
        first, *others = context.tensors()
        if not others:
            return context.result("identity", first)
        chained = reduce(lambda a, b: context.emit(op, a, b), others[:-1], first)
        return context.result(op, chained, others[-1])

    return OnnxMapping(build=build)


def _mean(context: NodeContext, node: Any) -> Any:
    values = context.tensors()
    total = reduce(lambda a, b: context.emit("add", a, b), values)
    return context.result("div", total, scalar(len(values), total))


def scalar(value: Any, like: Tensor) -> np.ndarray[Any, Any]:
    """Return a number as an array of the dtype of another value."""
    return np.asarray(value).astype(like.dtype)


def _clip(context: NodeContext, node: Any) -> Any:
    x = context.x()
    if context.opset < 11:
        low: Any = context.attr_float("min", None)
        high: Any = context.attr_float("max", None)
        low = None if low is None else scalar(low, x)
        high = None if high is None else scalar(high, x)
    else:
        low, high = context.maybe(1), context.maybe(2)
    if isinstance(low, Blob) or isinstance(high, Blob):
        return _clip_by_blobs(context, x, low, high)
    limits = {}
    if low is not None:
        limits["low"] = _one(context, low, "min")
    if high is not None:
        limits["high"] = _one(context, high, "max")
    if np.dtype(x.dtype).kind in "iu":  # infinity is no integer
        info = np.iinfo(x.dtype)
        limits = {"low": int(info.min), "high": int(info.max), **limits}
    return context.result("clip", x, **limits)


def _one(context: NodeContext, value: np.ndarray[Any, Any], what: str) -> Any:
    if value.size != 1 or value.dtype.kind not in "iuf":
        context.fail(what, expected="one number", got=f"{value.dtype}{list(value.shape)}",
                     remedy="The file is broken.")  # fmt: skip
    return value.reshape(-1)[0].item()


def _clip_by_blobs(context: NodeContext, x: Tensor, low: Any, high: Any) -> Any:
    ops = [(op, v) for op, v in (("maximum", low), ("minimum", high)) if v is not None]
    for op, value in ops[:-1]:
        x = context.emit(op, x, value)
    return context.result(ops[-1][0], x, ops[-1][1])


def _pow(context: NodeContext, node: Any) -> Any:
    base, exponent = context.x(0), context.x(1)
    if base.dtype != exponent.dtype:
        exponent = context.emit("cast", exponent, dtype=np.dtype(base.dtype).name)
    if np.dtype(base.dtype).kind in "iu" and np.dtype(context.x(1).dtype).kind == "f":
        # An integer to a fractional power is computed as a float and cut off.
        wide = context.emit("cast", base, dtype="float64")
        power = context.emit("cast", context.x(1), dtype="float64")
        return context.result(
            "cast", context.emit("pow", wide, power), dtype=np.dtype(base.dtype).name
        )
    return context.result("pow", base, exponent)


def _mod(context: NodeContext, node: Any) -> Any:
    return context.result("fmod" if context.attr_int("fmod", 0) else "mod", *context.tensors())


def _bit_shift(context: NodeContext, node: Any) -> Any:
    direction = context.attr_str("direction")
    if direction not in ("LEFT", "RIGHT"):
        context.fail("attribute 'direction'", expected="LEFT or RIGHT", got=direction,
                     remedy="The file is broken.")  # fmt: skip
    op = "shift_left" if direction == "LEFT" else "shift_right"
    return context.result(op, *context.tensors())


def _is_inf(context: NodeContext, node: Any) -> Any:
    return context.result(
        "isinf", context.x(), positive=bool(context.attr_int("detect_positive", 1)),
        negative=bool(context.attr_int("detect_negative", 1)),
    )  # fmt: skip


def _prelu(context: NodeContext, node: Any) -> Any:
    x, slope = context.x(0), context.x(1)
    if context.opset < 7 and len(slope.shape) == 1 and slope.shape[0] > 1:
        slope = context.emit("reshape", slope, shape=(-1, *[1] * (len(x.shape) - 2)))
    return context.result("prelu", x, slope)


def _legacy_binary(op: str) -> OnnxMapping:
    """Operators before set 7: broadcasting had to be asked for, from an axis on."""

    def build(context: NodeContext, node: Any) -> Any:
        a, b = context.x(0), context.x(1)
        axis = context.attr_int("axis", None)
        if context.attr_int("broadcast", 0) and axis is not None and len(b.shape) < len(a.shape):
            axis %= len(a.shape)
            behind = len(a.shape) - axis - len(b.shape)
            b = context.emit("reshape", b, shape=(*b.shape, *[1] * behind))
        return context.result(op, a, b)

    return OnnxMapping(until=6, build=build)


NODES: dict[str, Any] = {
    "Add": _legacy_binary("add"),
    "And": _legacy_binary("logical_and"),
    "BitShift": OnnxMapping(since=11, build=_bit_shift),
    "Clip": OnnxMapping(build=_clip),
    "Div": _legacy_binary("div"),
    "Equal": _legacy_binary("equal"),
    "Greater": _legacy_binary("greater"),
    "IsInf": OnnxMapping(since=10, build=_is_inf),
    "Less": _legacy_binary("less"),
    "Max": _many("maximum"),
    "Mean": OnnxMapping(build=_mean),
    "Min": _many("minimum"),
    "Mod": OnnxMapping(since=10, build=_mod),
    "Mul": _legacy_binary("mul"),
    "Or": _legacy_binary("logical_or"),
    "PRelu": OnnxMapping(build=_prelu),
    "Pow": (_legacy_binary("pow"), OnnxMapping(since=7, build=_pow)),
    "Sub": _legacy_binary("sub"),
    "Sum": _many("add"),
    "Xor": _legacy_binary("logical_xor"),
}
