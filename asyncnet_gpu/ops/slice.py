"""Parts of a blob, as views: slice and split."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import REQUIRED, Arrays, Attrs, OpCase, Specs, f32
from asyncnet_gpu.ops.checks import as_int, as_ints, fail, normal_axes
from asyncnet_gpu.ops.viewing import reshaped, view_op
from asyncnet_gpu.specs import TensorSpec, normal_axis, spec


def _slices(shape: tuple[int, ...], attrs: Attrs) -> tuple[slice, ...]:
    starts = as_ints(attrs["starts"], "starts", where="slice")
    ends = as_ints(attrs["ends"], "ends", where="slice")
    axes = range(len(starts)) if attrs["axes"] is None else attrs["axes"]
    axes = normal_axes(as_ints(axes, "axes", where="slice"), len(shape), where="slice")
    steps = (1,) * len(starts) if attrs["steps"] is None else attrs["steps"]
    steps = as_ints(steps, "steps", where="slice")
    if not len(starts) == len(ends) == len(axes) == len(steps):
        fail("slice", "lists differ in length", expected="one entry of each for every axis",
             got=f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes, {len(steps)} steps",
             remedy="Give starts, ends, axes and steps for the same axes.")  # fmt: skip
    if 0 in steps:
        fail("slice", f"steps={steps}", expected="steps other than 0", got=0,
             remedy="Use 1 to take every element.")  # fmt: skip
    parts = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(start, end, step)
    return tuple(parts)


def _infer_slice(ins: Specs, attrs: Attrs) -> Specs:
    shape = ins[0].shape
    parts = _slices(shape, attrs)
    return reshaped(
        ins, [len(range(*p.indices(extent))) for p, extent in zip(parts, shape, strict=True)]
    )


def _view_slice(array: Any, attrs: Attrs) -> Any:
    return array[(*_slices(array.shape, attrs), ...)]  # the dots keep an array of a scalar


def _reference_slice(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    (x,) = ins
    axes = attrs["axes"] if attrs["axes"] is not None else range(len(attrs["starts"]))
    steps = attrs["steps"] if attrs["steps"] is not None else [1] * len(attrs["starts"])
    chosen = [list(range(extent)) for extent in x.shape]
    for axis, start, end, step in zip(axes, attrs["starts"], attrs["ends"], steps, strict=True):
        chosen[axis] = chosen[axis][start:end:step]
    out = np.empty([len(c) for c in chosen], x.dtype)
    for place in np.ndindex(out.shape):
        out[place] = x[tuple([c[i] for c, i in zip(chosen, place, strict=True)])]
    return (out,)


def _split_sizes(shape: tuple[int, ...], attrs: Attrs) -> tuple[int, tuple[int, ...]]:
    axis = as_int(attrs["axis"], "axis", where="split")
    axis = normal_axis(axis, len(shape), where="split")
    extent, parts, sizes = shape[axis], attrs["parts"], attrs["sizes"]
    if (parts is None) == (sizes is None):
        fail("split", "how to split", expected="exactly one of parts= and sizes=",
             got=f"parts={parts!r}, sizes={sizes!r}", remedy="Give one of the two.")  # fmt: skip
    if sizes is None:
        count = as_int(parts, "parts", where="split")
        if count < 1 or extent % count:
            fail("split", f"parts={count} of axis {axis}", expected=f"a divisor of {extent}",
                 got=count, remedy="Give sizes=[...] for unequal parts.")  # fmt: skip
        return axis, (extent // count,) * count
    found = as_ints(sizes, "sizes", where="split")
    if not found or min(found) < 0 or sum(found) != extent:
        fail("split", f"sizes of axis {axis}", expected=f"extents that sum to {extent}",
             got=found, remedy="Let the sizes cover the axis.")  # fmt: skip
    return axis, found


def _infer_split(ins: Specs, attrs: Attrs) -> Specs:
    shape = ins[0].shape
    axis, sizes = _split_sizes(shape, attrs)
    return tuple([TensorSpec((*shape[:axis], s, *shape[axis + 1 :]), ins[0].dtype) for s in sizes])


def _view_split(array: Any, attrs: Attrs) -> tuple[Any, ...]:
    axis, sizes = _split_sizes(array.shape, attrs)
    ends = list(itertools.accumulate(sizes))
    before = (slice(None),) * axis
    return tuple([array[(*before, slice(e - s, e))] for s, e in zip(sizes, ends, strict=True)])


def _reference_split(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    if attrs["sizes"] is None:
        return tuple(np.split(ins[0], attrs["parts"], attrs["axis"]))
    outs, start = [], 0
    for size in attrs["sizes"]:
        outs.append(np.take(ins[0], np.arange(start, start + size), attrs["axis"]))
        start += size
    return tuple(outs)


_INT = spec((2, 3, 4), "int64")
_HALF = spec((3, 4), "float16")


OPS = (
    view_op(
        _view_slice,
        name="slice",
        kind="Slice",
        doc="""Take ``x[start:end:step]`` on some axes; a view.

        Parameters
        ----------
        x: any shape, any dtype
        starts, ends
            For each axis; as in Python, negative ones count from the end and others are cut off
            at the array's bounds.
        axes
            Which axes; None means the first ones.
        steps
            Not 0; negative ones walk backwards; None means 1.
        """,
        attrs={"starts": REQUIRED, "ends": REQUIRED, "axes": None, "steps": None},
        infer=_infer_slice,
        reference=_reference_slice,
        cases=(
            OpCase("rows", (f32(5, 4),), {"starts": (1,), "ends": (4,)}, rtol=0, atol=0),
            OpCase("steps", (f32(7, 6),),
                   {"starts": (0, -1), "ends": (99, 0), "axes": (0, 1), "steps": (2, -2)},
                   rtol=0, atol=0),
            OpCase("backwards", (spec((6,), "int32"),),
                   {"starts": (-1,), "ends": (-99,), "steps": (-1,)}, rtol=0, atol=0),
            OpCase("empty", (f32(3, 4),), {"starts": (2,), "ends": (1,), "axes": (-1,)},
                   rtol=0, atol=0),
            OpCase("scalar_as_it_is", (f32(),), {"starts": (), "ends": ()}, rtol=0, atol=0),
        ),
    ),
    view_op(
        _view_split,
        name="split",
        kind="Split",
        doc="""Cut a blob along an axis; the parts are views.

        Parameters
        ----------
        x: any shape, any dtype
        axis
            Which axis.
        parts
            Number of equal parts, or
        sizes
            Extent of each part; they sum to the extent of the axis.

        Returns
        -------
        A blob for each part.

        Raises
        ------
        ShapeError
            If `parts` does not divide the axis or `sizes` do not cover it.
        """,
        attrs={"axis": 0, "parts": None, "sizes": None},
        infer=_infer_split,
        reference=_reference_split,
        cases=(
            OpCase("halves", (f32(4, 6),), {"axis": 1, "parts": 2}, rtol=0, atol=0),
            OpCase("sizes", (_INT,), {"axis": -1, "sizes": (1, 0, 3)}, rtol=0, atol=0),
            OpCase("whole", (_HALF,), {"parts": 1}, rtol=0, atol=0),
        ),
    ),
)  # fmt: skip
