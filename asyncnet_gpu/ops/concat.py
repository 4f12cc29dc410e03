"""Joining and repeating: concat, stack and tile. Each output is written once, by copies."""

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
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.checks import as_int, as_ints, fail
from asyncnet_gpu.ops.strided import (
    CARRIERS,
    THREADS,
    bind_copies,
    copy_launches,
    grid_for,
    nothing,
)
from asyncnet_gpu.ops.viewing import repeated_view
from asyncnet_gpu.specs import TensorSpec, normal_axis, spec

#: Pieces that one launch of ``concat.cu`` joins; the same number stands there.
PIECES = 8

#: The struct `ConcatLayout` of ``concat.cu``, in elements.
CONCAT_LAYOUT = np.dtype(
    [
        ("rows", np.int64),
        ("out_row", np.int64),
        ("base", np.int64),
        ("offset", np.int64, (PIECES + 1,)),
    ],
    align=True,
)


# -- concat ----------------------------------------------------------------------------------


def _infer_concat(ins: Specs, attrs: Attrs) -> Specs:
    dtype = same_dtype(ins, where="concat")
    first = ins[0].shape
    axis = as_int(attrs["axis"], "axis", where="concat")
    axis = normal_axis(axis, len(first), where="concat")
    for other in ins[1:]:
        if len(other.shape) != len(first) or any(
            i != axis and a != b for i, (a, b) in enumerate(zip(first, other.shape, strict=True))
        ):
            fail("concat", f"shapes differ outside axis {axis}", expected=f"like {first}",
                 got=other.shape, remedy="Only the joined axis may differ.")  # fmt: skip
    total = sum(s.shape[axis] for s in ins)
    return (TensorSpec((*first[:axis], total, *first[axis + 1 :]), dtype),)


def _bind_concat(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    if not outs[0].size:
        return nothing
    # One call for all pieces; NumPy joins the strided ones, too, without a temporary.
    return partial(xp.concatenate, list(ins), attrs["axis"], outs[0])


def _places(ins: Arrays, out: Any, axis: int) -> list[tuple[Any, Any]]:
    pairs, start = [], 0
    for piece in ins:
        end = start + piece.shape[axis]
        pairs.append((piece, out[(slice(None),) * axis + (slice(start, end),)]))
        start = end
    return pairs


def _join_launches(pieces: Arrays, out: Any, axis: int) -> tuple[KernelLaunch, ...]:
    rows = int(np.prod(out.shape[:axis], dtype=np.int64))
    launches, base = [], 0
    for first in range(0, len(pieces), PIECES):
        group = list(pieces[first : first + PIECES])
        lengths = [piece.size // rows for piece in group]
        offsets = np.cumsum([0, *lengths, *[0] * (PIECES - len(group))])
        layout = np.zeros((), CONCAT_LAYOUT)
        layout["rows"], layout["out_row"], layout["base"] = rows, out.size // rows, base
        layout["offset"] = offsets
        base += sum(lengths)
        args = (*group, *[group[0]] * (PIECES - len(group)), out, layout)
        entry = f"concat<{CARRIERS[out.dtype.itemsize]}>"
        grid = grid_for(rows * sum(lengths))
        launches.append(KernelLaunch("concat.cu", entry, grid, (THREADS, 1, 1), args))
    return tuple(launches)


def _kernel_concat(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (out,) = outs
    if not out.size:
        return ()
    axis = attrs["axis"] % out.ndim
    pieces = [piece for piece in ins if piece.size]
    if all(piece.flags.c_contiguous for piece in pieces):
        return _join_launches(pieces, out, axis)
    return copy_launches(_places(pieces, out, axis))


def _reference_concat(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    axis = attrs["axis"] % ins[0].ndim
    pieces = [np.moveaxis(piece, axis, 0) for piece in ins]
    rows = [row for piece in pieces for row in piece]
    out = np.empty((len(rows), *pieces[0].shape[1:]), ins[0].dtype)
    for i, row in enumerate(rows):
        out[i] = row
    return (np.moveaxis(out, 0, axis),)


# -- stack -----------------------------------------------------------------------------------


def _stack_axis(attrs: Attrs, ndim: int) -> int:
    return normal_axis(as_int(attrs["axis"], "axis", where="stack"), ndim + 1, where="stack")


def _infer_stack(ins: Specs, attrs: Attrs) -> Specs:
    dtype = same_dtype(ins, where="stack")
    first = ins[0].shape
    for other in ins[1:]:
        if other.shape != first:
            fail("stack", "shapes differ", expected=first, got=other.shape,
                 remedy="Use net.concat to join blobs of unequal shape.")  # fmt: skip
    axis = _stack_axis(attrs, len(first))
    return (TensorSpec((*first[:axis], len(ins), *first[axis:]), dtype),)


def _with_axis(ins: Arrays, attrs: Attrs) -> tuple[list[Any], int]:
    axis = _stack_axis(attrs, ins[0].ndim)
    return [piece[(slice(None),) * axis + (None,)] for piece in ins], axis


def _bind_stack(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    pieces, axis = _with_axis(ins, attrs)
    return _bind_concat(xp, pieces, outs, {"axis": axis}, scratch)


def _kernel_stack(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    pieces, axis = _with_axis(ins, attrs)
    return _kernel_concat(pieces, outs, {"axis": axis}, scratch)


def _reference_stack(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    out = np.empty((len(ins), *ins[0].shape), ins[0].dtype)
    for i, piece in enumerate(ins):
        out[i] = piece
    return (np.moveaxis(out, 0, attrs["axis"]),)


# -- tile ------------------------------------------------------------------------------------


def _infer_tile(ins: Specs, attrs: Attrs) -> Specs:
    repeats = as_ints(attrs["repeats"], "repeats", where="tile")
    if len(repeats) != ins[0].ndim or min(repeats, default=0) < 0:
        fail("tile", f"repeats={repeats}", expected=f"{ins[0].ndim} numbers of at least 0",
             got=repeats, remedy="Give one for every axis; 1 leaves an axis alone.")  # fmt: skip
    shape = [extent * times for extent, times in zip(ins[0].shape, repeats, strict=True)]
    return (TensorSpec(tuple(shape), ins[0].dtype),)


def _tile_pair(x: Any, out: Any, attrs: Attrs, broadcast_to: Any) -> list[tuple[Any, Any]]:
    """Input and output with an axis of repeats before each axis, so that one copy does it all."""
    if not out.size:
        return []
    repeats = as_ints(attrs["repeats"], "repeats", where="tile")
    split = [n for times, extent in zip(repeats, x.shape, strict=True) for n in (times, extent)]
    repeated = x[(None, slice(None)) * x.ndim + (...,)]
    return [(broadcast_to(repeated, tuple(split)), out.reshape(split))]


def _bind_tile(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return bind_copies(xp, _tile_pair(ins[0], outs[0], attrs, xp.broadcast_to))


def _kernel_tile(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    return copy_launches(_tile_pair(ins[0], outs[0], attrs, repeated_view))


def _reference_tile(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    (x,) = ins
    repeats = attrs["repeats"]
    repeats = repeats if isinstance(repeats, (list, tuple)) else [repeats]
    out = np.empty([e * r for e, r in zip(x.shape, repeats, strict=True)], x.dtype)
    for place in np.ndindex(out.shape):
        out[place] = x[tuple([i % e for i, e in zip(place, x.shape, strict=True)])]
    return (out,)


OPS = (
    Op(
        name="concat",
        kind="Concat",
        doc="""Join blobs along an axis.

        Parameters
        ----------
        xs: equal shapes outside `axis`, equal dtypes
        axis
            Which axis; negative ones count from the last.

        Raises
        ------
        ShapeError
            If shapes differ on another axis, or dtypes differ.
        """,
        n_inputs=(1, None),
        attrs={"axis": REQUIRED},
        infer=_infer_concat,
        bind=_bind_concat,
        kernel=_kernel_concat,
        reference=_reference_concat,
        onnx={"Concat": OnnxMapping(since=4)},
        cases=(
            OpCase("rows", (f32(2, 3), f32(4, 3)), {"axis": 0}, rtol=0, atol=0),
            OpCase("columns", (f32(2, 3), f32(2, 1), f32(2, 5)), {"axis": -1}, rtol=0, atol=0),
            OpCase("single", (f32(2, 3),), {"axis": 0}, rtol=0, atol=0),
            OpCase("with_empty", (f32(2, 3), f32(2, 0), f32(2, 2)), {"axis": 1}, rtol=0, atol=0),
            OpCase("nine", tuple([spec((2, i, 3), "int64") for i in range(1, 10)]), {"axis": 1},
                   rtol=0, atol=0),
            OpCase("bool", (spec((3, 2), "bool"), spec((3, 1), "bool")), {"axis": 1},
                   rtol=0, atol=0),
            OpCase("half", (spec((3, 2), "float16"), spec((3, 1), "float16")), {"axis": 1},
                   rtol=0, atol=0),
            OpCase("channels", (f32(2, 32, 28, 28), f32(2, 64, 28, 28)), {"axis": 1},
                   rtol=0, atol=0, perf=True),
        ),
    ),
    Op(
        name="stack",
        kind="Stack",
        doc="""Join blobs of equal shape along a new axis.

        Parameters
        ----------
        xs: equal shapes and dtypes
        axis
            Where the new axis is in the result.
        """,
        n_inputs=(1, None),
        attrs={"axis": 0},
        infer=_infer_stack,
        bind=_bind_stack,
        kernel=_kernel_stack,
        reference=_reference_stack,
        cases=(
            OpCase("front", (f32(2, 3), f32(2, 3)), rtol=0, atol=0),
            OpCase("last", (f32(2, 3), f32(2, 3), f32(2, 3)), {"axis": -1}, rtol=0, atol=0),
            OpCase("scalars", (f32(), f32()), rtol=0, atol=0),
        ),
    ),
    Op(
        name="tile",
        kind="Tile",
        doc="""Repeat a blob along its axes.

        Parameters
        ----------
        x: any shape, any dtype
        repeats
            How often, for each axis.
        """,
        n_inputs=(1, 1),
        attrs={"repeats": REQUIRED},
        infer=_infer_tile,
        bind=_bind_tile,
        kernel=_kernel_tile,
        reference=_reference_tile,
        cases=(
            OpCase("both", (f32(2, 3),), {"repeats": (2, 3)}, rtol=0, atol=0),
            OpCase("none", (spec((2, 3), "int32"),), {"repeats": (1, 0)}, rtol=0, atol=0),
            OpCase("vector", (spec((3,), "bool"),), {"repeats": 4}, rtol=0, atol=0),
        ),
    ),
)  # fmt: skip
