"""Pad: a border of constants or of the blob's own elements round a blob, or cropping."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    REQUIRED,
    Arrays,
    Attrs,
    KernelLaunch,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.ops.checks import as_ints, fail, normal_axes, one_of
from asyncnet_gpu.ops.strided import CARRIERS, MAX_AXES, THREADS, grid_for, launch_all, nothing
from asyncnet_gpu.specs import TensorSpec, spec

#: In the order of their numbers in ``concat.cu``.
MODES = ("constant", "edge", "reflect", "wrap")

#: The struct `PadLayout` of ``concat.cu``: strides in elements.
PAD_LAYOUT = np.dtype(
    [("size", np.int64)]
    + [(name, np.int64, (MAX_AXES,)) for name in ("shape", "extent", "begin", "stride")]
    + [("value", np.uint64), ("ndim", np.int32), ("mode", np.int32)],
    align=True,
)


def _borders(shape: tuple[int, ...], attrs: Attrs) -> list[tuple[int, int]]:
    """Return begin and end of every axis; negative numbers crop."""
    pads = as_ints(attrs["pads"], "pads", where="pad")
    axes: Sequence[int] = range(len(shape))
    if attrs["axes"] is not None:
        axes = normal_axes(as_ints(attrs["axes"], "axes", where="pad"), len(shape), where="pad")
    if len(pads) != 2 * len(axes):
        fail("pad", f"{len(pads)} pads", expected=f"{2 * len(axes)}: all begins, then all ends",
             got=pads, remedy="Give two numbers for every axis.")  # fmt: skip
    borders = [(0, 0)] * len(shape)
    for i, axis in enumerate(axes):
        borders[axis] = (pads[i], pads[i + len(axes)])
    return borders


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    one_of(attrs["mode"], "mode", MODES, where="pad")
    try:
        ins[0].dtype.type(attrs["value"])
    except (OverflowError, ValueError, TypeError):
        fail("pad", f"value={attrs['value']!r}", expected=f"one that {ins[0].dtype} holds",
             got=attrs["value"], remedy="Give another value, or cast the blob.")  # fmt: skip
    shape = ins[0].shape
    padded = []
    for axis, (begin, end) in enumerate(_borders(shape, attrs)):
        kept = shape[axis] + min(begin, 0) + min(end, 0)
        if kept < 0:
            fail("pad", f"axis {axis} is cropped away", expected=f"at most {shape[axis]}",
                 got=-min(begin, 0) - min(end, 0), remedy="Crop less.")  # fmt: skip
        if attrs["mode"] != "constant" and kept == 0 and (begin > 0 or end > 0):
            fail("pad", f"axis {axis} is empty", expected=f"an element to {attrs['mode']}",
                 got=shape, remedy="Use mode='constant'.")  # fmt: skip
        padded.append(shape[axis] + begin + end)
    return (TensorSpec(tuple(padded), ins[0].dtype),)


def _cropped(x: Any, attrs: Attrs) -> tuple[Any, list[tuple[int, int]]]:
    """Return what is kept of the input and the borders, which are then at least 0."""
    borders = _borders(x.shape, attrs)
    kept = [
        slice(max(-begin, 0), extent - max(-end, 0))
        for (begin, end), extent in zip(borders, x.shape, strict=True)
    ]
    return x[(*kept, ...)], [(max(begin, 0), max(end, 0)) for begin, end in borders]


def _inner(shape: Sequence[int], borders: Sequence[tuple[int, int]], axes: range) -> list[slice]:
    """Select the part without a border on `axes` and everything on the others."""
    return [
        slice(begin, extent - end) if axis in axes else slice(None)
        for axis, ((begin, end), extent) in enumerate(zip(borders, shape, strict=True))
    ]


def runs(extent: int, begin: int, end: int, mode: str) -> list[tuple[slice, slice]]:
    """Split the border of one axis into (target, source) slices of the padded axis.

    Targets lie in the border, sources in the middle, and no run turns round, so that each is one
    copy between disjoint parts of the same array.

    >>> runs(3, 2, 0, "reflect")
    [(slice(0, 2, None), slice(4, 2, -1))]
    """
    table = np.pad(np.arange(extent), (begin, end), mode=mode)  # type: ignore[call-overload]
    pairs = []
    for low, high in ((0, begin), (begin + extent, begin + extent + end)):
        start = low
        while start < high:
            stop = start + 1
            step = int(table[stop] - table[start]) if stop < high else 0
            step = step if step in (-1, 0, 1) else 0
            while stop < high and table[stop] - table[stop - 1] == step:
                stop += 1
            first, last = begin + int(table[start]), begin + int(table[stop - 1])
            back = None if last + step < 0 else last + step
            source = slice(first, first + 1) if step == 0 else slice(first, back, step)
            if step == 1:
                source = slice(first, last + 1)
            pairs.append((slice(start, stop), source))
            start = stop
    return pairs


def _constant_fills(out: Any, borders: Sequence[tuple[int, int]], value: Any) -> list[Launch]:
    fills: list[Launch] = []
    for axis, (begin, end) in enumerate(borders):
        where = _inner(out.shape, borders, range(axis))  # axes before are done: no byte twice
        for part in (slice(0, begin), slice(out.shape[axis] - end, None)):
            where[axis] = part
            border = out[tuple(where)]
            if border.size:
                fills.append(partial(border.fill, value))
    return fills


def _copied_fills(xp: Any, out: Any, borders: Sequence[tuple[int, int]], mode: str) -> list[Launch]:
    fills: list[Launch] = []
    ndim = out.ndim
    for axis, (begin, end) in enumerate(borders):
        # Axes before this one already have their border and pass it on to the corners.
        where = _inner(out.shape, borders, range(axis + 1, ndim))
        for target, source in runs(out.shape[axis] - begin - end, begin, end, mode):
            parts = []
            for part in (target, source):
                where[axis] = part
                parts.append(out[tuple(where)])
            if parts[0].size:
                fills.append(partial(xp.copyto, parts[0], parts[1]))
    return fills


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (out,) = outs
    if not out.size:
        return nothing
    kept, borders = _cropped(ins[0], attrs)
    middle = out[(*_inner(out.shape, borders, range(out.ndim)), ...)]
    copy = partial(xp.copyto, middle, kept)
    if attrs["mode"] == "constant":
        return launch_all([copy, *_constant_fills(out, borders, out.dtype.type(attrs["value"]))])
    return launch_all([copy, *_copied_fills(xp, out, borders, attrs["mode"])])


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (out,) = outs
    if out.ndim > MAX_AXES:
        return None
    if not out.size:
        return ()
    kept, borders = _cropped(ins[0], attrs)
    item = out.dtype.itemsize
    layout = np.zeros((), PAD_LAYOUT)
    layout["size"], layout["ndim"], layout["mode"] = out.size, out.ndim, MODES.index(attrs["mode"])
    bits = np.array(attrs["value"], out.dtype).view(f"u{item}")
    layout["value"] = int(bits)
    for axis in range(out.ndim):
        layout["shape"][axis], layout["extent"][axis] = out.shape[axis], kept.shape[axis]
        layout["begin"][axis], layout["stride"][axis] = borders[axis][0], kept.strides[axis] // item
    grid = grid_for(out.size)
    entry = f"pad<{CARRIERS[item]}>"
    # A border of constants round nothing reads nothing, but every pointer must be one.
    source = kept if kept.size else out
    return (KernelLaunch("concat.cu", entry, grid, (THREADS, 1, 1), (source, out, layout)),)


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    (x,) = ins
    pads = list(attrs["pads"])
    axes = list(range(x.ndim)) if attrs["axes"] is None else [a % x.ndim for a in attrs["axes"]]
    for i, axis in enumerate(axes):
        begin, end = pads[i], pads[i + len(axes)]
        keep = range(max(0, -begin), x.shape[axis] - max(0, -end))
        x = np.take(x, keep, axis)
        width = [(0, 0)] * x.ndim
        width[axis] = (max(begin, 0), max(end, 0))
        options = {"constant_values": attrs["value"]} if attrs["mode"] == "constant" else {}
        x = np.pad(x, width, mode=attrs["mode"], **options)
    return (x,)


PAD = Op(
    name="pad",
    kind="Pad",
    doc="""Put a border round a blob.

    Parameters
    ----------
    x: any shape, any dtype
    pads
        For the axes concerned all widths before, then all widths after, as in ONNX. Negative
        widths crop.
    mode
        "constant": `value`; "edge": the nearest element; "reflect": mirrored about the outermost
        element, which is not repeated; "wrap": the other side.
    value
        Of the border in mode "constant".
    axes
        Which axes `pads` is about; None means all.

    Raises
    ------
    ShapeError
        If the number of pads does not fit, more is cropped than there is, or there is nothing to
        mirror.

    Notes
    -----
    Meaning of the modes: ``numpy.pad``.
    """,
    n_inputs=(1, 1),
    attrs={"pads": REQUIRED, "mode": "constant", "value": 0, "axes": None},
    infer=_infer,
    bind=_bind,
    kernel=_kernel,
    reference=_reference,
    cases=(
        OpCase("zeros", (f32(2, 3),), {"pads": (1, 2, 0, 1)}, rtol=0, atol=0),
        OpCase("value", (f32(2, 3, 4),), {"pads": (1, 1), "axes": (-1,), "value": -2.5},
               rtol=0, atol=0),
        OpCase("images", (f32(2, 3, 5, 4),), {"pads": (0, 0, 1, 2, 0, 0, 3, 1)}, rtol=0, atol=0),
        OpCase("crop", (f32(5, 4),), {"pads": (-1, 2, -2, -1)}, rtol=0, atol=0),
        OpCase("edge", (f32(3, 4),), {"pads": (2, 1, 1, 3), "mode": "edge"}, rtol=0, atol=0),
        OpCase("reflect", (f32(3, 4),), {"pads": (2, 1, 1, 3), "mode": "reflect"}, rtol=0, atol=0),
        OpCase("reflect_far", (f32(3, 2),), {"pads": (5, 4, 6, 3), "mode": "reflect"},
               rtol=0, atol=0),
        OpCase("reflect_one", (f32(1, 3),), {"pads": (2, 0, 1, 0), "mode": "reflect"},
               rtol=0, atol=0),
        OpCase("reflect_cropped", (f32(4, 5),), {"pads": (-1, 2, 2, -2), "mode": "reflect"},
               rtol=0, atol=0),
        OpCase("wrap", (f32(3, 2),), {"pads": (1, 5, 4, 0), "mode": "wrap"}, rtol=0, atol=0),
        OpCase("of_nothing", (f32(0, 2),), {"pads": (1, 0, 1, 0), "value": 7}, rtol=0, atol=0),
        OpCase("int64", (spec((2, 2), "int64"),), {"pads": (1, 1, 1, 1), "value": -1},
               rtol=0, atol=0),
        OpCase("bool", (spec((2, 2), "bool"),), {"pads": (1, 0, 0, 1), "value": True},
               rtol=0, atol=0),
        OpCase("half", (spec((2, 2), "float16"),), {"pads": (1, 0, 0, 1), "value": 1.5},
               rtol=0, atol=0),
    ),
)  # fmt: skip

OPS = (PAD,)
