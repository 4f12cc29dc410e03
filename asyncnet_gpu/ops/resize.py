"""Resampling to another extent: nearest, linear and cubic, in any number of axes.

Every mode is separable: an output position of an axis is a weighted sum of a few input positions of
that axis. On the CPU positions and weights are tables made when the node is bound, and a run takes
and adds, axis by axis; on CUDA ``resize.cu`` computes them where it needs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    NUMBERS,
    REQUIRED,
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.ops.checks import as_ints, fail, one_of
from asyncnet_gpu.ops.resize_axes import COORDINATES, MODES, ROUNDINGS, ResizedAxis, resized_axes
from asyncnet_gpu.ops.resize_kernel import (
    one_launch,
    resize_launches,
    result_bounds,
    working_dtype,
)
from asyncnet_gpu.ops.strided import launch_all, nothing
from asyncnet_gpu.specs import TensorSpec, spec


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


# -- running -------------------------------------------------------------------------------------


def _stages(shape: tuple[int, ...], attrs: Attrs) -> list[tuple[int, ...]]:
    """Return the shape after each axis that changes."""
    shapes, current = [], list(shape)
    for axis in resized_axes(shape, attrs):
        current[axis.axis] = axis.out
        shapes.append(tuple(current))
    return shapes


def _scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    x = ins[0]
    if not outs[0].size:
        return ()
    if device_kind == "cpu":
        return _temporaries(x.shape, x.dtype, attrs)
    if one_launch(resized_axes(x.shape, attrs), attrs):
        return ()
    dtype = working_dtype(x.dtype)
    return tuple([TensorSpec(s, dtype) for s in _stages(x.shape, attrs)[:-1]])


def _temporaries(shape: tuple[int, ...], dtype: np.dtype[Any], attrs: Attrs) -> Specs:
    """For NumPy: the input in the working dtype, the result of each axis, a term of its sum."""
    work = dtype if attrs["mode"] == "nearest" else working_dtype(dtype)
    stages = _stages(shape, attrs)
    converted = [TensorSpec(shape, work)] if stages and work != dtype else []
    results = [TensorSpec(s, work) for s in (stages if converted else stages[:-1])]
    terms = [] if attrs["mode"] == "nearest" else [TensorSpec(s, work) for s in stages]
    return (*converted, *results, *terms)


def _take(xp: Any, source: Any, places: Any, axis: int, out: Any) -> None:
    if xp is np:
        # "clip": the mode in which NumPy writes into `out` without a buffer between.
        np.take(source, places, axis, out=out, mode="clip")
    else:
        xp.take(source, places, axis, out=out)


def _axis_steps(
    xp: Any, source: Any, axis: ResizedAxis, attrs: Attrs, target: Any, term: Any
) -> list[Launch]:
    """Return the steps that resample one axis; `term` has the shape of `target`."""
    places, weights = axis.places(attrs), axis.weights(attrs).astype(target.dtype)
    columns = [xp.asarray(np.ascontiguousarray(column)) for column in places.T]
    steps: list[Launch] = [partial(_take, xp, source, columns[0], axis.axis, target)]
    if term is None:
        return steps
    shape = (-1, *[1] * (target.ndim - 1 - axis.axis))
    factors = [xp.asarray(column).reshape(shape) for column in weights.T]
    steps.append(partial(xp.multiply, target, factors[0], out=target))
    for column, factor in zip(columns[1:], factors[1:], strict=True):
        steps.append(partial(_take, xp, source, column, axis.axis, term))
        steps.append(partial(xp.multiply, term, factor, out=term))
        steps.append(partial(xp.add, target, term, out=target))
    return steps


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x,), (out,) = ins, outs
    if not out.size:
        return nothing
    axes = resized_axes(x.shape, attrs)
    if not axes:
        return partial(xp.copyto, out, x)
    wanted = _temporaries(x.shape, x.dtype, attrs)
    # A CUDA node whose layout has no kernel brings its own temporaries, once.
    room = list(scratch) if xp is np else [xp.empty(s.shape, s.dtype) for s in wanted]
    terms = [None] * len(axes) if attrs["mode"] == "nearest" else room[-len(axes) :]
    steps: list[Launch] = []
    source = x
    if wanted and wanted[0].dtype != x.dtype:
        source = room.pop(0)
        steps.append(partial(xp.copyto, source, x))
    converted = source is not x
    targets = room[: len(axes)] if converted else [*room[: len(axes) - 1], out]
    for axis, target, term in zip(axes, targets, terms, strict=True):
        steps += _axis_steps(xp, source, axis, attrs, target, term)
        source = target
    if converted:
        overshoots = attrs["mode"] == "cubic" or out.dtype.itemsize == 8  # float64 lacks the last
        if out.dtype.kind != "f" and overshoots:
            steps.append(partial(xp.clip, source, *result_bounds(out.dtype), out=source))
        steps.append(partial(xp.copyto, out, source, casting="unsafe"))
    if attrs["coordinates"] == "tf_crop_and_resize":
        value = xp.full((), attrs["extrapolation"]).astype(out.dtype)
        for axis in axes:
            view = xp.moveaxis(out, axis.axis, 0)
            places = np.flatnonzero(axis.outside()).tolist()
            steps += [partial(xp.copyto, view[i : i + 1], value) for i in places]
    return launch_all(steps)


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    return resize_launches(ins[0], outs[0], attrs, scratch)


# -- reference and definition --------------------------------------------------------------------


def _original(o: int, length: int, out: int, scale: float, attrs: Attrs, axis: int) -> float:
    """Return where an output lies in the input, as ONNX defines it."""
    mode = attrs["coordinates"]
    if mode == "tf_crop_and_resize":
        start, end = attrs["roi"][axis], attrs["roi"][axis + len(attrs["sizes"])]
        if out == 1:
            return float(0.5 * (start + end) * (length - 1))
        return float(start * (length - 1) + o * (end - start) * (length - 1) / (out - 1))
    if mode == "align_corners":
        return 0.0 if length * scale == 1 else o * (length - 1) / (length * scale - 1)
    if mode == "asymmetric":
        return o / scale
    if mode == "pytorch_half_pixel" and out <= 1:
        return 0.0
    offset = length / 2 * (1 - out / (length * scale)) if mode == "half_pixel_symmetric" else 0.0
    return offset + (o + 0.5) / scale - 0.5


def _mixed(x: float, length: int, scale: float, attrs: Attrs) -> Any:
    """Return the weight of every element of an axis of the input."""
    weights = np.zeros(length)
    if attrs["mode"] == "nearest":
        choices = {"round_prefer_floor": math.ceil(x - 0.5), "floor": math.floor(x),
                   "round_prefer_ceil": math.floor(x + 0.5), "ceil": math.ceil(x)}  # fmt: skip
        weights[min(max(choices[attrs["rounding"]], 0), length - 1)] = 1
        return weights
    stretch = min(scale, 1.0) if attrs["antialias"] else 1.0
    reach = math.ceil((1 if attrs["mode"] == "linear" else 2) / stretch)
    a = attrs["cubic_a"]
    for place in range(math.floor(x) - reach + 1, math.floor(x) + reach + 1):
        d = abs(x - place) * stretch
        if attrs["mode"] == "linear":
            weight = max(0.0, 1 - d)
        elif d <= 1:
            weight = (a + 2) * d**3 - (a + 3) * d**2 + 1
        else:
            weight = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0
        if 0 <= place < length or not attrs["exclude_outside"]:
            weights[min(max(place, 0), length - 1)] += weight
    normalised = attrs["exclude_outside"] or attrs["antialias"]
    return weights / weights.sum() if normalised else weights


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    """Weigh every element of every axis, position by position."""
    value = np.asarray(ins[0], np.float64)
    outside = np.zeros(attrs["sizes"], np.bool_)
    for axis, (length, out) in enumerate(zip(ins[0].shape, attrs["sizes"], strict=True)):
        scale = out / max(1, length) if attrs["scales"] is None else attrs["scales"][axis]
        at = [_original(o, length, out, scale, attrs, axis) for o in range(out)]
        matrix = np.zeros((out, length))
        for o, x in enumerate(at):
            matrix[o] = _mixed(x, length, scale, attrs)
        value = np.moveaxis(np.tensordot(matrix, value, ([1], [axis])), 0, axis)
        beyond = np.array([not 0 <= x <= length - 1 for x in at], np.bool_)
        outside |= beyond.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
    dtype = ins[0].dtype
    if dtype.kind != "f" and value.size:
        value = np.clip(value, np.iinfo(dtype).min, np.iinfo(dtype).max)
    if attrs["coordinates"] == "tf_crop_and_resize":
        value = np.where(outside, attrs["extrapolation"], value)
    return (value if dtype.kind == "f" else value.astype(dtype),)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    shape = ins[0].shape
    stages = zip(resized_axes(shape, attrs), _stages(shape, attrs), strict=True)
    taken = sum(axis.taps * math.prod(stage) for axis, stage in stages)
    return Cost(2.0 * taken, 3.0 * taken * ins[0].dtype.itemsize)


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
        kernel=_kernel,
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
            OpCase("channels_last", (f32(2, 3, 4, 3),), {"sizes": (2, 5, 9, 3), "mode": "linear"}),
            OpCase("volume", (f32(1, 2, 3, 4, 3),), {"sizes": (1, 2, 5, 3, 4), "mode": "cubic"},
                   rtol=1e-4, atol=1e-5),
            OpCase("four_axes", (f32(2, 3, 4, 3),), {"sizes": (3, 4, 5, 5), "mode": "linear"}),
            OpCase("wide_filter", (f32(2, 150, 3),),
                   {"sizes": (2, 2, 2), "mode": "cubic", "antialias": True}, rtol=1e-4, atol=1e-5),
            OpCase("wide_crop", (f32(9, 2, 9),),
                   {"sizes": (3, 2, 4), "mode": "linear", "coordinates": "tf_crop_and_resize",
                    "scales": (1 / 3, 1.0, 4 / 9), "roi": (0, 0, 0.3, 0.5, 1, 1.4),
                    "antialias": True, "extrapolation": -3.0}),
            OpCase("exclude_outside", (f32(3, 4, 5),),
                   {"sizes": (3, 6, 4), "mode": "cubic", "cubic_a": -0.5, "exclude_outside": True},
                   rtol=1e-4, atol=1e-5),
            OpCase("half", (spec((2, 4, 6), "float16"),),
                   {"sizes": (2, 5, 4), "mode": "linear", "antialias": True}, rtol=2e-3, atol=2e-3),
            OpCase("double", (spec((2, 4, 6), "float64"),), {"sizes": (2, 5, 4), "mode": "cubic"},
                   rtol=1e-12, atol=1e-12),
            # An overshoot is held at the largest number, and does not wrap around.
            OpCase("overshoot", (np.array([0, 0, 255, 255, 255, 0], np.uint8),),
                   {"sizes": (13,), "mode": "cubic"}, rtol=0, atol=0),
            OpCase("long", (spec((2, 4, 6), "int64"),), {"sizes": (2, 7, 6), "mode": "linear"},
                   rtol=0, atol=0),
            OpCase("many_axes", (f32(*[2] * 9),), {"sizes": (3, 1) * 4 + (3,)}, rtol=0, atol=0),
            OpCase("as_it_is", (f32(2, 3),), {"sizes": (2, 3), "mode": "cubic"}, rtol=0, atol=0),
            OpCase("none", (f32(0, 3),), {"sizes": (0, 5), "mode": "linear"}, rtol=0, atol=0),
            OpCase("picture", (f32(1, 16, 64, 64),), {"sizes": (1, 16, 96, 96), "mode": "linear"},
                   perf=True, rtol=1e-4, atol=1e-5),
        ),
    ),
)  # fmt: skip
