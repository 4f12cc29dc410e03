"""Launches of ``reductions.cu``: blocks, and parts where a reduction is long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, KernelLaunch, Specs
from asyncnet_gpu.ops.elementwise_kernel import (
    CUDA_TYPES,
    compute_scalar,
    element_strides,
    merged,
    pack_layout,
)
from asyncnet_gpu.specs import TensorSpec

_MAX_THREADS = 256
_COLUMNS = 32  # neighbouring outputs of one block of reduce_columns
_COLUMN_THREADS = 8
_FEW_BLOCKS = 512  # fewer leave a large device idle
_PART = 4096  # elements that are worth a part


def split_shape(shape: Sequence[int], axes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the extents that are kept and those that are reduced."""
    kept = [extent for axis, extent in enumerate(shape) if axis not in axes]
    return kept, [shape[axis] for axis in sorted(axes)]


def _is_columns(shape: Sequence[int], axes: Sequence[int]) -> bool:
    """Whether outputs lie side by side: the last axis stays and is long enough."""
    return bool(axes) and len(shape) - 1 not in axes and shape[-1] >= _COLUMNS // 2


def n_parts(shape: Sequence[int], axes: Sequence[int]) -> int:
    """Number of parts into which the elements of each output are split."""
    kept, reduced = split_shape(shape, axes)
    outputs, length = math.prod(kept), math.prod(reduced)
    columns = _is_columns(shape, axes)
    blocks = -(-outputs // _COLUMNS) if columns else outputs
    part = _PART // _COLUMN_THREADS if columns else _PART
    return max(1, min(-(-length // part), -(-_FEW_BLOCKS // max(blocks, 1)), 1024))


def parts_scratch(x: TensorSpec, axes: Sequence[int]) -> Specs:
    """Temporaries of a reduction on CUDA: the partial results, where there are several."""
    accumulator = np.dtype(type(compute_scalar(0, x.dtype)))
    parts = n_parts(x.shape, axes)
    if parts == 1:
        return ()
    outputs = math.prod(split_shape(x.shape, axes)[0])
    return (TensorSpec((outputs, parts), accumulator),)


def threads_for(length: int) -> int:
    """Threads of a block that reduces `length` elements: a power of two, one warp at least."""
    return min(_MAX_THREADS, max(32, 1 << max(length - 1, 0).bit_length()))


def layouts(x: Any, axes: Sequence[int]) -> tuple[Any, Any] | None:
    """Return the layouts of the kept and of the reduced axes, or None where one does not fit."""
    strides = element_strides(x, x.shape)
    made = []
    for chosen in ([a for a in range(x.ndim) if a not in axes], sorted(axes)):
        shape = [x.shape[a] for a in chosen]
        axes_left = merged(shape, [[strides[a] for a in chosen]])
        made.append(pack_layout(math.prod(shape), axes_left))
    return None if made[0] is None or made[1] is None else (made[0], made[1])


def _launch(
    entry: str, grid: tuple[int, int, int], block: tuple[int, int, int], args: tuple[Any, ...]
) -> KernelLaunch:
    return KernelLaunch("reductions.cu", entry, grid, block, args)


def reduce_launches(
    x: Any, out: Any, axes: Sequence[int], functions: tuple[str, str, str], scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    """Launch ``out = finish(combine(map(x)))`` for `functions` (map, combine, finish).

    None where there are too many axes.
    """
    found = layouts(x, axes)
    if found is None:
        return None
    length = math.prod(split_shape(x.shape, axes)[1])
    kept, reduced = found
    if not out.size:
        return ()
    before, combine, finish = functions
    parts = n_parts(x.shape, axes)
    target, last = (out, finish) if parts == 1 else (scratch[0], "Same")
    types = f"{CUDA_TYPES[x.dtype.name]}, {CUDA_TYPES[target.dtype.name]}"
    columns = _is_columns(x.shape, axes)
    name = "reduce_columns" if columns else "reduce_rows"
    blocks = -(-out.size // _COLUMNS) if columns else out.size
    block = (_COLUMNS, _COLUMN_THREADS, 1) if columns else (threads_for(-(-length // parts)), 1, 1)
    count = compute_scalar(length, x.dtype)
    first = _launch(
        f"{name}<{types}, {before}, {combine}, {last}>", (blocks, parts, 1), block,
        (x, target, kept, reduced, np.int64(parts), count),
    )  # fmt: skip
    if parts == 1:
        return (first,)
    types = f"{CUDA_TYPES[target.dtype.name]}, {CUDA_TYPES[out.dtype.name]}"
    rows, row = pack_layout(out.size, [(out.size, parts)]), pack_layout(parts, [(parts, 1)])
    second = _launch(
        f"reduce_rows<{types}, Same, {combine}, {finish}>", (out.size, 1, 1),
        (threads_for(parts), 1, 1),
        (target, out, rows, row, np.int64(1), compute_scalar(length, target.dtype)),
    )  # fmt: skip
    return (first, second)


def row_launches(
    entry: str, x: Any, out: Any, axes: Sequence[int], *extra: Any
) -> Sequence[KernelLaunch] | None:
    """Launch a kernel that has a block for each output and both layouts as parameters."""
    found = layouts(x, axes)
    if found is None:
        return None
    length = math.prod(split_shape(x.shape, axes)[1])
    if not out.size:
        return ()
    args = (x, out, *found, *extra)
    return (_launch(entry, (out.size, 1, 1), (threads_for(length), 1, 1), args),)
