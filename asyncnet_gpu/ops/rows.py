"""Work on the rows of an array, a few at a time so that they stay in cache.

As in `blocks`: every pass over a block of rows hits the cache, and float16 is computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from asyncnet_gpu.ops.base import Launch
from asyncnet_gpu.ops.blocks import BLOCK, Step, working_dtype
from asyncnet_gpu.ops.strided import launch_all, nothing
from asyncnet_gpu.specs import TensorSpec

#: ``(x, y, block, statistics) -> steps`` for arrays of shape (rows, *row_shape); `y` may be `x`.
RowFormula = Callable[[Any, Any, Sequence[Any], Sequence[Any]], list[Step]]


def rows_per_block(row_size: int, rows: int) -> int:
    """Rows that fit a block; one at least."""
    return max(1, min(rows, BLOCK // max(row_size, 1)))


def row_scratch(
    x: TensorSpec, rows: int, statistics: Sequence[int], n_blocks: int
) -> tuple[TensorSpec, ...]:
    """Temporaries of `bind_rows`.

    Parameters
    ----------
    statistics
        Numbers for each row that each of the statistics has.
    n_blocks
        Temporaries as large as a block that the formula needs.
    """
    dtype = working_dtype(x.dtype)
    row_size = x.size // max(rows, 1)
    count = rows_per_block(row_size, rows)
    blocks = n_blocks + (dtype != x.dtype)
    sizes = [count * row_size] * blocks + [count * n for n in statistics]
    return tuple([TensorSpec((size,), dtype) for size in sizes])


def bind_rows(
    xp: Any, formula: RowFormula, x: Any, out: Any, rows: int, row_shape: Sequence[int],
    statistics: Sequence[Sequence[int]], scratch: Sequence[Any],
) -> Launch:  # fmt: skip
    """Return a launch that fills `out` row by row; `statistics` are shapes for one row."""
    if not out.size:
        return nothing
    steps: list[Step] = []
    if not x.flags.c_contiguous:
        # Rows of a strided array need not be rows in memory; its copy is walked in place.
        steps.append(partial(xp.copyto, out, x))
        x = out
    x, out = x.reshape(rows, *row_shape), out.reshape(rows, *row_shape)
    row_size = math.prod(row_shape)
    count = rows_per_block(row_size, rows)
    blocks, numbers = list(scratch[: len(scratch) - len(statistics)]), scratch[-len(statistics) :]
    narrow = working_dtype(out.dtype) != out.dtype
    for start in range(0, rows, count):
        part = slice(start, min(start + count, rows))
        n = part.stop - part.start
        shaped = [b[: n * row_size].reshape(n, *row_shape) for b in blocks]
        sums = [
            s[: n * math.prod(shape)].reshape(n, *shape)
            for s, shape in zip(numbers, statistics, strict=True)
        ]
        if not narrow:
            steps += formula(x[part], out[part], shaped, sums)
            continue
        work, *others = shaped
        steps.append(partial(xp.copyto, work, x[part]))
        steps += formula(work, work, others, sums)
        steps.append(partial(xp.copyto, out[part], work, casting="same_kind"))
    return launch_all(steps)
