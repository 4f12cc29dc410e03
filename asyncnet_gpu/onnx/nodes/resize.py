"""Resize and Upsample: factors or extents, in some axes, with the aspect ratio kept or not."""

from __future__ import annotations

import math
from typing import Any

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.onnx.limits import MAX_NDIM
from asyncnet_gpu.ops.base import OnnxMapping

_MODES = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}


def _mode(context: NodeContext) -> str:
    mode: str = context.attr_str("mode", "nearest")
    if mode not in _MODES:
        context.fail("attribute 'mode'", expected=", ".join(_MODES), got=mode[:200],
                     remedy="The file is broken.")  # fmt: skip
    return _MODES[mode]


def _floats(context: NodeContext, index: int, what: str) -> tuple[float, ...] | None:
    """Return an optional input as floats; an empty one counts as omitted."""
    if not context.has(index):
        return None
    array = context.known(index, what)
    return tuple(map(float, array.reshape(-1).tolist())) if array.size else None


def _scaled(context: NodeContext, shape: tuple[int, ...], scales: tuple[float, ...]) -> Any:
    if len(scales) != len(shape) or not all(0 < s < 1e12 for s in scales):
        context.fail("scales", expected=f"{len(shape)} positive numbers", got=scales[:10],
                     remedy="The file is broken.")  # fmt: skip
    return tuple(math.floor(extent * s) for extent, s in zip(shape, scales, strict=True))


def _upsample(context: NodeContext, node: Any) -> Any:
    x = context.x()
    scales = _floats(context, 1, "scales") or context.attr_floats("scales", None)
    if scales is None:  # operator set 1
        scales = (1.0, 1.0, context.attr_float("height_scale"), context.attr_float("width_scale"))
    return context.result(
        "resize", x, sizes=_scaled(context, x.shape, scales), scales=scales, mode=_mode(context),
        coordinates="asymmetric", rounding="floor",
    )  # fmt: skip


def _resize_10(context: NodeContext, node: Any) -> Any:
    return _upsample(context, node)


def _full(values: Any, axes: list[int], neutral: Any) -> list[Any]:
    """Spread numbers for some axes over all of them."""
    full = list(neutral)
    for axis, value in zip(axes, values, strict=True):
        full[axis] = value
    return full


def _extents(
    context: NodeContext, shape: tuple[int, ...], wanted: tuple[int, ...], axes: list[int]
) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """Return extents and factors for given extents, under the policy on the aspect ratio."""
    policy = context.attr_str("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return tuple(_full(wanted, axes, shape)), None
    choose = {"not_larger": min, "not_smaller": max}.get(policy)
    if choose is None:
        context.fail(
            "attribute 'keep_aspect_ratio_policy'",
            got=policy[:200],
            expected="stretch, not_larger or not_smaller",
            remedy="The file is broken.",
        )
    if any(shape[a] == 0 for a in axes):
        context.fail("input", expected="at least one element", got=shape,
                     remedy="Nothing has no aspect ratio.")  # fmt: skip
    scale = choose(w / shape[a] for w, a in zip(wanted, axes, strict=True))
    sizes = [math.floor(shape[a] * scale + 0.5) for a in axes]
    return tuple(_full(sizes, axes, shape)), tuple(
        _full([scale] * len(axes), axes, [1.0] * len(shape))
    )


def _resize(context: NodeContext, node: Any) -> Any:
    x = context.x()
    rank = context.axes(x, "input", 1, MAX_NDIM)
    axes = [a % rank for a in context.attr_ints("axes", tuple(range(rank)))]
    scales: Any = _floats(context, 2, "scales")
    if scales is not None and len(scales) != len(axes):
        context.fail("scales", expected=f"{len(axes)} numbers", got=len(scales),
                     remedy="The file is broken.")  # fmt: skip
    if scales is None:
        wanted = context.known_ints(3, "sizes")
        if len(wanted) != len(axes):
            context.fail("sizes", expected=f"{len(axes)} numbers", got=len(wanted),
                         remedy="The file is broken.")  # fmt: skip
        sizes, scales = _extents(context, x.shape, wanted, axes)
    else:
        scales = tuple(_full(scales, axes, [1.0] * rank))
        sizes = _scaled(context, x.shape, scales)
    roi: Any = _floats(context, 1, "roi")
    coordinates = context.attr_str("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_half_pixel_for_nn":
        coordinates = "half_pixel"
    if coordinates == "tf_crop_and_resize" and roi is not None:
        n = len(axes)
        roi = (*_full(roi[:n], axes, [0.0] * rank), *_full(roi[n:], axes, [1.0] * rank))
    context.importer.budget.tensor(sizes, 8, context.where)
    return context.result(
        "resize", x, sizes=sizes, scales=scales, mode=_mode(context), coordinates=coordinates,
        rounding=context.attr_str("nearest_mode", "round_prefer_floor"),
        cubic_a=context.attr_float("cubic_coeff_a", -0.75),
        exclude_outside=bool(context.attr_int("exclude_outside", 0)),
        antialias=bool(context.attr_int("antialias", 0)),
        roi=roi if coordinates == "tf_crop_and_resize" else None,
        extrapolation=context.attr_float("extrapolation_value", 0.0),
    )  # fmt: skip


NODES = {
    "Resize": (OnnxMapping(until=10, build=_resize_10), OnnxMapping(since=11, build=_resize)),
    "Upsample": OnnxMapping(build=_upsample),
}
