"""Resampling to another extent: nearest, linear and cubic, in any number of axes.

Every mode is separable: an output position of an axis is a weighted sum of a few input positions of
that axis. Positions and weights are tables made when the node is bound; a run takes and adds.

Sources: ONNX operator *Resize* for the coordinate systems; R. Keys, *Cubic convolution
interpolation for digital image processing*, 1981, for the cubic weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    NUMBERS,
    REQUIRED,
    Arrays,
    Attrs,
    Cost,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.ops.checks import as_ints, fail, one_of
from asyncnet_gpu.specs import TensorSpec, spec

Array = np.ndarray[Any, Any]

COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_crop_and_resize",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
MODES = ("nearest", "linear", "cubic")


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    sizes = as_ints(attrs["sizes"], "sizes", where="resize")
    one_of(attrs["mode"], "mode", MODES, where="resize")
    one_of(attrs["coordinates"], "coordinates", COORDINATES, where="resize")
    one_of(attrs["rounding"], "rounding", ROUNDINGS, where="resize")
    rank = ins[0].ndim
    scales, roi = attrs["scales"], attrs["roi"]
    wrong = scales is not None and (len(scales) != rank or not all(s > 0 for s in scales))
    if len(sizes) != rank or min([1, *sizes]) < 0 or wrong:
        fail("resize", f"sizes={sizes}, scales={scales}", expected=f"{rank} positive ones",
             got=sizes, remedy="Give every axis its extent.")  # fmt: skip
    if attrs["coordinates"] == "tf_crop_and_resize" and (roi is None or len(roi) != 2 * rank):
        fail("resize", f"roi={roi}", expected=f"{2 * rank} numbers", got=roi,
             remedy="Give starts and ends for every axis.")  # fmt: skip
    if 0 in ins[0].shape and 0 not in sizes:
        fail("resize", "input", expected="at least one element", got=ins[0],
             remedy="Nothing cannot be enlarged.")  # fmt: skip
    return (TensorSpec(sizes, ins[0].dtype),)


# -- positions and weights of one axis -----------------------------------------------------------


def _source(length: int, out: int, scale: float, mode: str, roi: tuple[float, float]) -> Array:
    """Return where in the input each output position lies."""
    x = np.arange(out, dtype=np.float64)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        wide = length * scale
        return x * ((length - 1) / (wide - 1)) if wide != 1 else np.zeros(out)
    if mode == "tf_crop_and_resize":
        start, end = roi
        if out == 1:
            return np.full(1, 0.5 * (start + end) * (length - 1))
        return start * (length - 1) + x * (end - start) * (length - 1) / (out - 1)
    if mode == "pytorch_half_pixel" and out <= 1:
        return np.zeros(out)
    half = (x + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        # The extent was cut to an integer: centre what is left.
        half += 0.5 * length * (1 - out / (length * scale))
    return half


def _rounded(x: Array, rounding: str) -> Array:
    if rounding == "floor":
        return np.floor(x)
    if rounding == "ceil":
        return np.ceil(x)
    return np.ceil(x - 0.5) if rounding == "round_prefer_floor" else np.floor(x + 0.5)


def _linear(distance: Array) -> Array:
    weight: Array = np.maximum(0, 1 - np.abs(distance))
    return weight


def _cubic(a: float) -> Callable[[Array], Array]:
    def weight(distance: Array) -> Array:
        d = np.abs(distance)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    return weight


def axis_table(
    length: int, out: int, scale: float, attrs: Attrs, roi: tuple[float, float]
) -> tuple[Array, Array, Array]:
    """Return positions (out, taps), weights (out, taps), and which positions lie outside."""
    x = _source(length, out, scale, attrs["coordinates"], roi)
    outside = (x < 0) | (x > length - 1)
    if attrs["mode"] == "nearest":
        places = _rounded(x, attrs["rounding"])[:, None]
        return np.clip(places, 0, length - 1).astype(np.int64), np.ones((out, 1)), outside
    reach, kernel = (1, _linear) if attrs["mode"] == "linear" else (2, _cubic(attrs["cubic_a"]))
    stretch = min(scale, 1.0) if attrs["antialias"] else 1.0
    reach_in = math.ceil(reach / stretch)
    first = np.floor(x).astype(np.int64) - reach_in + 1
    places = first[:, None] + np.arange(2 * reach_in)
    weights = kernel((x[:, None] - places) * stretch)
    if attrs["exclude_outside"] or attrs["antialias"]:
        inside = (places >= 0) & (places < length)
        if attrs["exclude_outside"]:
            weights = np.where(inside, weights, 0)
        weights = weights / weights.sum(1, keepdims=True)
    return np.clip(places, 0, length - 1), weights, outside


def _tables(shape: tuple[int, ...], attrs: Attrs) -> list[tuple[int, Array, Array, Array]]:
    """Return the tables of the axes that change, with the axis first."""
    found = []
    rank, crops = len(shape), attrs["coordinates"] == "tf_crop_and_resize"
    for axis, (length, out) in enumerate(zip(shape, attrs["sizes"], strict=True)):
        scale = out / max(1, length) if attrs["scales"] is None else attrs["scales"][axis]
        roi = (attrs["roi"][axis], attrs["roi"][axis + rank]) if crops else (0.0, 1.0)
        if out == length and scale == 1 and roi == (0.0, 1.0):
            continue
        found.append((axis, *axis_table(length, out, scale, attrs, roi)))
    return found


# -- running -------------------------------------------------------------------------------------


def _work_dtype(dtype: np.dtype[Any], mode: str) -> np.dtype[Any]:
    return dtype if mode == "nearest" or dtype.kind == "f" else np.dtype("float32")


def _stages(shape: tuple[int, ...], attrs: Attrs) -> list[tuple[int, ...]]:
    """Return the shape after each axis that changes."""
    shapes, current = [], list(shape)
    for axis, *_ in _tables(shape, attrs):
        current[axis] = attrs["sizes"][axis]
        shapes.append(tuple(current))
    return shapes


def _scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    dtype = _work_dtype(ins[0].dtype, attrs["mode"])
    stages = _stages(ins[0].shape, attrs)
    # The result of each axis, and one term of its sum.
    twice = 1 if attrs["mode"] == "nearest" else 2
    return tuple([TensorSpec(s, dtype) for s in stages for _ in range(twice)])


def _take(xp: Any, source: Any, places: Any, axis: int, out: Any) -> None:
    if xp is np:
        # "clip": the mode in which NumPy writes into `out` without a buffer between.
        np.take(source, places, axis, out=out, mode="clip")
    else:
        xp.take(source, places, axis, out=out)


def _bind_axis(
    xp: Any, source: Any, axis: int, places: Array, weights: Array, target: Any, term: Any
) -> Launch:
    columns = [xp.asarray(np.ascontiguousarray(places[:, k])) for k in range(places.shape[1])]
    if term is None:
        return lambda: _take(xp, source, columns[0], axis, target)
    shape = (-1, *[1] * (target.ndim - 1 - axis))
    factors = [
        xp.asarray(weights[:, k].astype(target.dtype)).reshape(shape) for k in range(len(columns))
    ]

    def launch() -> None:
        _take(xp, source, columns[0], axis, target)
        xp.multiply(target, factors[0], out=target)
        for column, factor in zip(columns[1:], factors[1:], strict=True):
            _take(xp, source, column, axis, term)
            xp.multiply(term, factor, out=term)
            xp.add(target, term, out=target)

    return launch


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, out = ins[0], outs[0]
    tables, room = _tables(x.shape, attrs), list(scratch)
    launches: list[Launch] = []
    crops = attrs["coordinates"] == "tf_crop_and_resize"
    source = x
    if tables and x.dtype != _work_dtype(x.dtype, attrs["mode"]):
        source = xp.empty(x.shape, _work_dtype(x.dtype, attrs["mode"]))
        launches.append(lambda: xp.copyto(source_copy, x))
    source_copy = source
    for axis, places, weights, _ in tables:
        target = room.pop(0)
        term = room.pop(0) if attrs["mode"] != "nearest" else None
        launches.append(_bind_axis(xp, source, axis, places, weights, target, term))
        source = target
    last = source
    launches.append(lambda: xp.copyto(out, last, casting="unsafe"))
    if crops:
        value = xp.full((), attrs["extrapolation"]).astype(out.dtype)
        for axis, _, _, outside in tables:
            view = xp.moveaxis(out, axis, 0)
            launches.extend(_fill(xp, view[int(i)], value) for i in np.flatnonzero(outside))

    def launch() -> None:
        for call in launches:
            call()

    return launch


def _fill(xp: Any, view: Any, value: Any) -> Launch:
    return lambda: xp.copyto(view, value)


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    """Sum over every combination of taps, position by position."""
    x = np.asarray(ins[0], np.float64)
    tables = {axis: rest for axis, *rest in _tables(x.shape, attrs)}
    out = np.empty(attrs["sizes"])
    for at in np.ndindex(out.shape):
        value, extrapolated = x, False
        for axis in reversed(range(x.ndim)):
            if axis in tables:
                places, weights, outside = tables[axis]
                row = np.take(value, places[at[axis]], axis)
                value = np.tensordot(row, weights[at[axis]], ([axis], [0]))
                extrapolated |= bool(outside[at[axis]])
            else:
                value = np.take(value, at[axis], axis)
        crops = attrs["coordinates"] == "tf_crop_and_resize"
        out[at] = attrs["extrapolation"] if crops and extrapolated else value
    return (out.astype(np.asarray(ins[0]).dtype) if ins[0].dtype.kind != "f" else out,)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    taps = {"nearest": 1, "linear": 2, "cubic": 4}[attrs["mode"]]
    stages = sum(math.prod(s) for s in _stages(ins[0].shape, attrs))
    return Cost(2.0 * taps * stages, 3.0 * taps * stages * ins[0].dtype.itemsize)


OPS = (
    Op(
        name="resize",
        kind="Resize",
        doc="""Resample to other extents.

        Parameters
        ----------
        x: any shape, numbers
        sizes
            Extent of every axis of the result.
        scales
            Factor of every axis where it is not ``sizes / shape``.
        mode
            "nearest", "linear" or "cubic".
        coordinates
            Which input position an output position is: "half_pixel", "half_pixel_symmetric",
            "pytorch_half_pixel", "align_corners", "asymmetric" or "tf_crop_and_resize".
        rounding
            Of positions for "nearest": "round_prefer_floor", "round_prefer_ceil", "floor", "ceil".
        cubic_a
            Keys' parameter.
        exclude_outside
            Weights beyond the input are 0 and the others sum to 1; else the edge is repeated.
        antialias
            Stretch the filter when the result is smaller.
        roi, extrapolation
            For "tf_crop_and_resize": starts and ends as fractions, and what lies outside is.
        """,
        n_inputs=(1, 1),
        attrs={
            "sizes": REQUIRED, "scales": None, "mode": "nearest", "coordinates": "half_pixel",
            "rounding": "round_prefer_floor", "cubic_a": -0.75, "exclude_outside": False,
            "antialias": False, "roi": None, "extrapolation": 0.0,
        },
        infer=_infer,
        bind=_bind,
        reference=_reference,
        scratch=_scratch,
        cost=_cost,
        dtypes=NUMBERS,
        cases=(
            OpCase("twice", (f32(1, 2, 3, 4),),
                   {"sizes": (1, 2, 6, 8), "coordinates": "asymmetric", "rounding": "floor"},
                   rtol=0, atol=0),
            OpCase("linear", (f32(1, 2, 3, 4),), {"sizes": (1, 2, 5, 7), "mode": "linear"}),
            OpCase("corners", (f32(3, 4),),
                   {"sizes": (6, 2), "mode": "linear", "coordinates": "align_corners"}),
            OpCase("cubic", (f32(4, 4),), {"sizes": (7, 3), "mode": "cubic"}, rtol=1e-4,
                   atol=1e-5),
            OpCase("antialias", (f32(8, 6),),
                   {"sizes": (3, 2), "mode": "linear", "antialias": True}),
            OpCase("crop", (f32(4, 4),),
                   {"sizes": (3, 3), "mode": "linear", "coordinates": "tf_crop_and_resize",
                    "roi": (0.4, -0.2, 0.8, 1.2), "extrapolation": 10.0}),
            OpCase("bytes", (spec((4, 4), "uint8"),), {"sizes": (2, 8)}, rtol=0, atol=0),
        ),
    ),
)  # fmt: skip
