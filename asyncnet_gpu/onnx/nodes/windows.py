"""Convolution and pooling: padding by name or numbers, kernels by shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping

_AUTO_PADS = {"VALID": "valid", "SAME_UPPER": "same_upper", "SAME_LOWER": "same_lower"}


def n_spatial(context: NodeContext, value: Any) -> int:
    """Return the number of spatial axes of an input."""
    count = len(value.shape) - 2
    if count < 1:
        context.fail("input 0", expected="at least one spatial axis", got=list(value.shape),
                     remedy="The file is broken.")  # fmt: skip
    return count


def window(context: NodeContext, count: int) -> dict[str, Any]:
    """Return strides, padding and dilations of a node with `count` spatial axes."""
    auto = context.attr_str("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "", *_AUTO_PADS):
        context.fail("attribute 'auto_pad'", expected=", ".join(_AUTO_PADS), got=auto[:200],
                     remedy="The file is broken.")  # fmt: skip
    pads: Any = _AUTO_PADS.get(auto) or context.attr_ints("pads", (0,) * (2 * count))
    return {
        "strides": context.attr_ints("strides", (1,) * count), "pads": pads,
        "dilations": context.attr_ints("dilations", (1,) * count),
    }  # fmt: skip


def _conv(context: NodeContext, node: Any) -> Any:
    count = n_spatial(context, context.x())
    _check_kernel(context, context.x(1))
    return context.result(
        "conv", *context.tensors(), groups=context.attr_int("group", 1), **window(context, count)
    )


def _check_kernel(context: NodeContext, weights: Any) -> None:
    kernel = context.attr_ints("kernel_shape", None)
    if kernel is not None and kernel != tuple(weights.shape[2:]):
        context.fail("attribute 'kernel_shape'", expected=list(weights.shape[2:]),
                     got=list(kernel), remedy="The file is broken.")  # fmt: skip


def _conv_transpose(context: NodeContext, node: Any) -> Any:
    x, w = context.x(), context.x(1)
    count = n_spatial(context, x)
    _check_kernel(context, w)
    attrs = window(context, count)
    extra = context.attr_ints("output_padding", (0,) * count)
    shape = context.attr_ints("output_shape", None)
    full = [
        (x.shape[2 + i] - 1) * attrs["strides"][i] + extra[i]
        + (w.shape[2 + i] - 1) * attrs["dilations"][i] + 1
        for i in range(count)
    ]  # fmt: skip
    if shape is None and isinstance(attrs["pads"], str) and attrs["pads"] != "valid":
        shape = [x.shape[2 + i] * attrs["strides"][i] for i in range(count)]
    if shape is not None:
        attrs["pads"], extra = _pads_for(full, shape[-count:], extra, attrs["pads"])
    elif attrs["pads"] == "valid":
        attrs["pads"] = (0,) * (2 * count)
    return context.result(
        "conv_transpose", *context.tensors(), groups=context.attr_int("group", 1),
        output_padding=tuple(extra), **attrs,
    )  # fmt: skip


def _pads_for(
    full: list[int], shape: Any, extra: tuple[int, ...], pads: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding that gives a wanted shape; more output than there is becomes `extra`."""
    totals = [f - s for f, s in zip(full, shape, strict=True)]
    grown = tuple(e + max(0, -t) for e, t in zip(extra, totals, strict=True))
    totals = [max(0, t) for t in totals]
    small = [t // 2 for t in totals]
    large = [t - s for t, s in zip(totals, small, strict=True)]
    begin, end = (large, small) if pads != "same_upper" else (small, large)
    return (*begin, *end), grown


def _pool_attrs(context: NodeContext) -> dict[str, Any]:
    count = n_spatial(context, context.x())
    return {
        "kernel": context.attr_ints("kernel_shape"), **window(context, count),
        "ceil_mode": bool(context.attr_int("ceil_mode", 0)),
    }  # fmt: skip


def _max_pool(context: NodeContext, node: Any) -> Any:
    attrs = _pool_attrs(context)
    if context.wants(1):
        return _max_pool_places(context, attrs)
    return context.result("max_pool", context.x(), **attrs)


def _max_pool_places(context: NodeContext, attrs: dict[str, Any]) -> Any:
    x = context.x()
    y, places = context.emit("max_pool_places", x, **attrs)
    if context.attr_int("storage_order", 0):
        # Places count through the whole input in C order; asked for is column-major in a plane.
        plane = x.shape[2:]
        axes = (*range(2), *reversed(range(2, 2 + len(plane))))
        size = math.prod(x.shape)
        context.importer.budget.constant(size * 8, context.where)
        moved = np.arange(size).reshape(*x.shape[:2], *plane[::-1]).transpose(axes)
        table = np.ascontiguousarray(moved).reshape(-1)
        places = context.emit("gather", table, places, axis=0)
    return y, places


def _average_pool(context: NodeContext, node: Any) -> Any:
    return context.result(
        "average_pool", context.x(), **_pool_attrs(context),
        count_include_pad=bool(context.attr_int("count_include_pad", 0)),
    )  # fmt: skip


def _lp_pool(context: NodeContext, node: Any) -> Any:
    """The p-norm of a window is a mean of powers, times the number of taps."""
    attrs, x = _pool_attrs(context), context.x()
    p = context.attr_int("p", 2) if context.opset >= 2 else int(context.attr_float("p", 2.0))
    taps = math.prod(attrs["kernel"])
    power = context.emit("pow", context.emit("abs", x), np.asarray(p, x.dtype))
    # Taps in the padding count as zeros, so that each mean is over the same number of them.
    mean = context.emit("average_pool", power, **attrs, count_include_pad=True)
    total = context.emit("mul", mean, np.asarray(taps, x.dtype))
    return context.result("pow", total, np.asarray(1 / p, x.dtype))


def _global_lp_pool(context: NodeContext, node: Any) -> Any:
    x = context.x()
    p = context.attr_int("p", 2)
    power = context.emit("pow", context.emit("abs", x), np.asarray(p, x.dtype))
    mean = context.emit("global_average_pool", power)
    total = context.emit("mul", mean, np.asarray(math.prod(x.shape[2:]), x.dtype))
    return context.result("pow", total, np.asarray(1 / p, x.dtype))


NODES = {
    "AveragePool": OnnxMapping(build=_average_pool),
    "Conv": OnnxMapping(build=_conv),
    "ConvTranspose": OnnxMapping(build=_conv_transpose),
    "GlobalLpPool": OnnxMapping(since=2, build=_global_lp_pool),
    "LpPool": OnnxMapping(build=_lp_pool),
    "MaxPool": OnnxMapping(build=_max_pool),
}
