"""Running sums and products along an axis; on CUDA by ``scan.cu``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    NUMBERS,
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
from asyncnet_gpu.ops.elementwise_kernel import (
    compute_scalar,
    element_strides,
    merged,
    pack_layout,
)
from asyncnet_gpu.ops.reduction_kernel import threads_for
from asyncnet_gpu.ops.strided import CUDA_NUMBERS
from asyncnet_gpu.specs import TensorSpec, normal_axis, spec

#: Rows this short go to one thread each, also where their elements lie side by side.
_SHORT = 32
_COLUMNS = 32  # neighbouring rows of a block of scan_columns
_COLUMN_THREADS = 8  # that share a row
_ITEMS = 4  # of each thread of scan_rows in a tile
_FEW_BLOCKS = 512  # fewer leave a large device idle
_PART = 8192  # elements that are worth a part

#: The struct `Scan` of ``scan.cu``: strides in elements.
SCAN = np.dtype(
    [(name, np.int64) for name in ("length", "x_step", "out_step", "parts")]
    + [("exclusive", np.int32), ("pad", np.int32)],
    align=True,
)


@dataclass(frozen=True, slots=True)
class _Launches:
    """How a scan is spread over blocks."""

    length: int
    columns: bool
    block: tuple[int, int, int]
    blocks: int
    parts: int


def _spread(shape: Sequence[int], axis: int) -> _Launches:
    length = shape[axis]
    rows = math.prod(shape) // length
    if length <= _SHORT:
        threads = _COLUMNS * _COLUMN_THREADS
        return _Launches(length, True, (threads, 1, 1), -(-rows // threads), 1)
    columns = math.prod(shape[axis + 1 :]) > 1
    blocks = -(-rows // _COLUMNS) if columns else rows
    part = _PART // _COLUMN_THREADS if columns else _PART
    parts = max(1, min(-(-length // part), _FEW_BLOCKS // blocks))
    threads = threads_for(-(-length // (parts * _ITEMS)))
    block = (_COLUMNS, _COLUMN_THREADS, 1) if columns else (threads, 1, 1)
    return _Launches(length, columns, block, blocks, parts)


def _scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    (x,) = ins
    if device_kind == "cpu" or not x.size:
        return ()
    axis = attrs["axis"] % x.ndim
    parts = _spread(x.shape, axis).parts
    kind = np.dtype("float32") if x.dtype == np.float16 else x.dtype
    return (TensorSpec((x.size // x.shape[axis], parts), kind),) if parts > 1 else ()


def _along(array: Any, axis: int, part: slice) -> Any:
    return array[(slice(None),) * axis + (part,)]


def _totals(
    word: str, x: Any, totals: Any, kept: Any, step: int, spread: _Launches
) -> KernelLaunch:
    """Launch what each part of each row comes to."""
    length = spread.length
    kind = "reduce_columns" if spread.columns else "reduce_rows"
    combine = "Sum" if word == "sum" else "Product"
    types = f"{CUDA_NUMBERS[x.dtype.name]}, {CUDA_NUMBERS[totals.dtype.name]}"
    row = pack_layout(length, [(length, step)])
    args = (x, totals, kept, row, np.int64(spread.parts), compute_scalar(length, x.dtype))
    entry, grid = f"{kind}<{types}, Same, {combine}, Same>", (spread.blocks, spread.parts, 1)
    return KernelLaunch("reductions.cu", entry, grid, spread.block, args)


def _kernel(
    word: str, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    x, out = ins[0], outs[0]
    if not out.size:
        return ()
    axis = attrs["axis"] % x.ndim
    if attrs["reverse"]:
        x, out = (_along(array, axis, slice(None, None, -1)) for array in (x, out))
    spread = _spread(x.shape, axis)
    strides = [element_strides(array, x.shape) for array in (x, out)]
    others = [a for a in range(x.ndim) if a != axis]
    axes = merged([x.shape[a] for a in others], [[s[a] for a in others] for s in strides])
    kept = pack_layout(x.size // spread.length, axes)
    if kept is None:
        return None
    scan = np.zeros((), SCAN)
    scan["length"], scan["parts"] = spread.length, spread.parts
    scan["x_step"], scan["out_step"] = (s[axis] for s in strides)
    scan["exclusive"] = bool(attrs["exclusive"])
    name = "scan_columns" if spread.columns else "scan_rows"
    entry = f"{name}<{CUDA_NUMBERS[x.dtype.name]}, {'Plus' if word == 'sum' else 'Times'}>"
    totals = scratch[0] if scratch else x  # not read where a row is one part
    args = (x, totals, out, kept, scan)
    launch = KernelLaunch("scan.cu", entry, (spread.blocks, spread.parts, 1), spread.block, args)
    if spread.parts == 1:
        return (launch,)
    return (_totals(word, x, totals, kept, strides[0][axis], spread), launch)


_CASES = (
    OpCase("rows", (f32(3, 5),), {"axis": 1}),
    OpCase("exclusive", (f32(3, 5),), {"axis": -2, "exclusive": True}),
    OpCase("reverse", (spec((2, 3, 4), "int64"),), {"axis": 1, "reverse": True}),
    OpCase("both", (f32(6),), {"axis": 0, "exclusive": True, "reverse": True}),
    OpCase("empty", (f32(0, 3),), {"axis": 0, "exclusive": True}),
    OpCase("long_rows", (f32(3, 2500),), {"axis": 1}, low=0.9, high=1.1, rtol=1e-4),
    OpCase("long_columns", (f32(300, 40),), {"axis": 0, "reverse": True}, low=0.9, high=1.1,
           rtol=1e-4),
    OpCase("one_long_row", (spec((30000,), "int16"),), {"axis": 0, "exclusive": True}),
    OpCase("few_long_columns", (f32(9000, 3),), {"axis": 0}, low=0.999, high=1.001,
           rtol=1e-3, perf=True),
    OpCase("half", (spec((4, 90), "float16"),), {"axis": 1}, low=0.9, high=1.1,
           rtol=1e-2),
)  # fmt: skip


def _define(name: str, kind: str, word: str, neutral: int) -> Op:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        normal_axis(attrs["axis"], ins[0].ndim, where=name)
        return (ins[0],)

    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        x, out = ins[0], outs[0]
        axis = attrs["axis"] % x.ndim
        accumulate = xp.cumsum if word == "sum" else xp.cumprod
        first = None
        if attrs["reverse"]:
            x, out = xp.flip(x, axis), xp.flip(out, axis)
        if attrs["exclusive"]:
            first = _along(out, axis, slice(0, 1))
            x, out = _along(x, axis, slice(0, -1)), _along(out, axis, slice(1, None))

        def launch() -> None:
            if first is not None:
                first[...] = neutral
            if out.size:
                accumulate(x, axis, dtype=out.dtype, out=out)

        return launch

    def reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
        x = np.moveaxis(np.asarray(ins[0]), attrs["axis"], 0)
        wide = np.float64 if x.dtype.kind == "f" else x.dtype
        out = np.empty(x.shape, wide)
        order = range(len(x))[:: -1 if attrs["reverse"] else 1]
        total = np.full(x.shape[1:], neutral, wide)
        for i in order:
            with np.errstate(over="ignore"):  # integers wrap around
                with_this = total + x[i] if word == "sum" else total * x[i]
            out[i] = total if attrs["exclusive"] else with_this
            total = with_this
        return (np.moveaxis(out, 0, attrs["axis"]),)

    return Op(
        name=name, kind=kind, n_inputs=(1, 1), infer=infer, bind=bind, reference=reference,
        doc=f"""Compute the running {word} along an axis.

        Parameters
        ----------
        x: any shape with at least one axis, numbers
        axis
            Along which.
        exclusive
            Leave the element itself out: the first one is {neutral}.
        reverse
            Begin at the end.
        """,
        attrs={"axis": REQUIRED, "exclusive": False, "reverse": False}, dtypes=NUMBERS,
        kernel=partial(_kernel, word), scratch=_scratch,
        cases=_CASES,
    )  # fmt: skip


OPS = (
    _define("cumsum", "CumSum", "sum", 0),
    _define("cumprod", "CumProd", "product", 1),
)
