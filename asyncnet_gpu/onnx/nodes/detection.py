"""Regions of interest, and convolution at positions that the net computes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


def _roi_align(context: NodeContext, node: Any) -> Any:
    mode = context.attr_str("mode", "avg")
    half = "half_pixel" if context.opset >= 16 else "output_half_pixel"
    frame = context.attr_str("coordinate_transformation_mode", half)
    if mode not in ("avg", "max") or frame not in ("half_pixel", "output_half_pixel"):
        context.fail("attributes", expected="mode avg or max", got=f"{mode}, {frame}",
                     remedy="The file is broken.")  # fmt: skip
    images = context.emit("cast", context.x(2), dtype="int64")
    return context.result(
        "roi_align", context.x(0), context.x(1), images,
        size=(context.attr_int("output_height", 1), context.attr_int("output_width", 1)),
        samples=context.attr_int("sampling_ratio", 0),
        scale=context.attr_float("spatial_scale", 1.0), half_pixel=frame == "half_pixel",
        mode="max" if mode == "max" else "average",
    )  # fmt: skip


# -- deformable convolution --------------------------------------------------------------------
#
# J. Dai and others, "Deformable convolutional networks", 2017; with the mask of X. Zhu and others,
# "Deformable ConvNets v2", 2018: every tap of every output samples the image where the offsets say,
# which makes the columns of an ordinary convolution.


def _taps(context: NodeContext, kernel: tuple[int, ...], out: tuple[int, ...]) -> Any:
    """Return where each tap of each output lies without offsets: (taps, *out, axes)."""
    n = len(kernel)
    strides = context.attr_ints("strides", (1,) * n)
    dilations = context.attr_ints("dilations", (1,) * n)
    pads = context.attr_ints("pads", (0,) * 2 * n)
    context.importer.budget.tensor((*kernel, *out, n), 8, context.where)
    axes = []
    for i in range(n):
        taps = np.arange(kernel[i]) * dilations[i]
        begins = np.arange(out[i]) * strides[i] - pads[i]
        shape = [1] * (2 * n)
        shape[i], shape[n + i] = kernel[i], out[i]
        axes.append(np.broadcast_to((taps[:, None] + begins).reshape(shape), (*kernel, *out)))
    return np.stack(axes, -1).reshape(math.prod(kernel), *out, n)


def _sampled(context: NodeContext, groups: int, kernel: tuple[int, ...]) -> Any:
    """Return the image at every tap: (batch, channels, taps, *out)."""
    x, offset, mask = context.x(0), context.x(2), context.maybe(4)
    batch, channels, *space = x.shape
    n, taps = len(kernel), math.prod(kernel)
    out = tuple(offset.shape[2:])
    # In float64: the frame of grid_sample would cost float32 a few of its digits.
    offset = context.emit("cast", offset, dtype="float64")
    # (batch * groups, taps, axes, *out) -> (..., axes): the axis of the position goes last.
    moved = context.emit("reshape", offset, shape=(batch * groups, taps, n, *out))
    order = (0, 1, *range(3, 3 + n), 2)
    at = context.emit("add", context.emit("transpose", moved, axes=order),
                      _taps(context, kernel, out).astype(np.float64))  # fmt: skip
    # Pixels to the frame of grid_sample, whose last axis starts with the innermost.
    scale, shift = 2 / np.asarray(space, np.float64), 1 / np.asarray(space, np.float64) - 1
    grid = context.emit("add", context.emit("mul", at, scale), shift)
    turned = context.emit("gather", grid, np.arange(n)[::-1].copy(), axis=n + 2)
    flat = context.emit("reshape", turned, shape=(batch * groups, taps * out[0], *out[1:], n))
    parts = context.emit("reshape", x, shape=(batch * groups, channels // groups, *space))
    made = context.emit("grid_sample", parts, flat)
    shape = (batch, groups, channels // groups, taps, *out)
    made = context.emit("reshape", made, shape=shape)
    if mask is not None:
        wide = context.emit("reshape", mask, shape=(batch, groups, 1, taps, *out))
        made = context.emit("mul", made, wide)
    return context.emit("reshape", made, shape=(batch, channels, taps, *out))


def _deform_conv(context: NodeContext, node: Any) -> Any:
    x, w, bias = context.x(0), context.x(1), context.maybe(3)
    kernel = tuple(w.shape[2:])
    groups, parts = context.attr_int("group", 1), context.attr_int("offset_group", 1)
    fits = len(x.shape) == len(w.shape) >= 3 and groups > 0 < parts and min(w.shape[2:]) > 0
    if not fits or x.shape[1] % parts or w.shape[0] % groups or 0 in x.shape[2:]:
        context.fail("attributes", expected="groups that divide the channels",
                     got=f"{x.shape[1:2]} channels, {groups} groups, {parts} of offsets",
                     remedy="The file is broken.")  # fmt: skip
    columns = _sampled(context, parts, kernel)
    batch, channels, taps, *out = columns.shape
    inner = channels // groups * taps
    columns = context.emit("reshape", columns, shape=(batch, groups, inner, math.prod(out)))
    weights = context.emit("reshape", w, shape=(groups, w.shape[0] // groups, inner))
    made = context.emit("matmul", weights, columns)
    shape = (batch, w.shape[0], *out)
    if bias is None:
        return context.result("reshape", made, shape=shape)
    wide = context.emit("reshape", bias, shape=(-1, *[1] * len(out)))
    return context.result("add", context.emit("reshape", made, shape=shape), wide)


NODES = {
    "DeformConv": OnnxMapping(since=19, build=_deform_conv),
    "RoiAlign": OnnxMapping(since=10, build=_roi_align),
}
