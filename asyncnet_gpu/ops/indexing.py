"""What gathering and scattering share: index checks, flat positions, the struct of ``gather.cu``.

On the CPU an index out of range raises IndexError when the node runs. A CUDA kernel cannot raise:
what it reads for such an index is unspecified (but in bounds), and it writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.errors import message
from asyncnet_gpu.ops.base import KernelLaunch, Launch
from asyncnet_gpu.ops.checks import fail
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, MAX_AXES, THREADS, grid_for
from asyncnet_gpu.specs import TensorSpec, contiguous_strides

INDEX_DTYPES = frozenset({"int32", "int64"})

#: The struct `IndexLayout` of ``gather.cu``, in elements.
INDEX_LAYOUT = np.dtype(
    [(name, np.int64) for name in ("outer", "extent", "count", "inner")]
    + [(name, np.int64, (MAX_AXES,)) for name in ("shape", "stride")]
    + [("on", np.uint64), ("off", np.uint64), ("ndim", np.int32), ("axis", np.int32)],
    align=True,
)


def check_index_dtype(indices: TensorSpec, *, where: str) -> None:
    """Raise `ShapeError` unless the indices are int32 or int64."""
    if indices.dtype.name not in INDEX_DTYPES:
        fail(where, "dtype of the indices", expected="int32 or int64", got=indices.dtype.name,
             remedy="Use net.cast first.")  # fmt: skip


def _check_range(indices: Any, unsigned: Any, extent: int, where: str) -> None:
    # Read as unsigned, a negative index is huge: one pass finds that all is well, as it mostly is.
    if unsigned.max() < extent:
        return
    low, high = indices.min(), indices.max()
    if low < -extent or high >= extent:
        raise IndexError(
            message(
                where,
                "index out of range",
                expected=f"{-extent}..{extent - 1}",
                got=int(low if low < -extent else high),
                remedy="Check the indices, or clip them before this node.",
            )
        )


def range_checks(xp: Any, indices: Any, extent: int, *, where: str) -> list[Launch]:
    """Return the step that raises IndexError for a bad index: on the CPU only, see above."""
    if xp is not np or not indices.size:
        return []
    unsigned = indices.view(f"u{indices.dtype.itemsize}")
    return [partial(_check_range, indices, unsigned, extent, where)]


def element_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """C-order strides in elements."""
    return contiguous_strides(shape, 1)


def flat_along_axis(
    xp: Any, indices: Any, shape: tuple[int, ...], axis: int, flat: Any, *, where: str
) -> list[Launch]:
    """Return steps that fill `flat` with offsets into a C-order array of `shape`.

    Entry p is the offset of p with its coordinate on `axis` replaced by ``indices[p]``.
    """
    strides = element_strides(shape)
    steps = range_checks(xp, indices, shape[axis], where=where)
    # The remainder by the extent has its sign: an index from the end becomes one from the start.
    steps.append(partial(xp.remainder, indices, flat.dtype.type(shape[axis]), flat))
    steps.append(partial(xp.multiply, flat, flat.dtype.type(strides[axis]), flat))
    for other, extent in enumerate(indices.shape):
        if other != axis:
            offsets = xp.arange(extent, dtype=flat.dtype) * strides[other]
            column = offsets[(slice(None),) + (None,) * (indices.ndim - other - 1)]
            steps.append(partial(xp.add, flat, column, flat))
    return steps


def flat_of_tuples(
    xp: Any, indices: Any, shape: Sequence[int], flat: Any, one: Any, *, where: str
) -> list[Launch]:
    """Return steps that fill `flat` with the number of the row that each index tuple names.

    Rows are the elements of a C-order array of `shape`; `one` is a temporary like `flat`.
    """
    strides = element_strides(shape)
    kind = flat.dtype.type
    steps: list[Launch] = []
    for k, extent in enumerate(shape):
        column = indices[..., k]
        steps += range_checks(xp, column, extent, where=where)
        target = one if k else flat
        steps.append(partial(xp.remainder, column, kind(extent), target))
        steps.append(partial(xp.multiply, target, kind(strides[k]), target))
        if k:
            steps.append(partial(xp.add, flat, one, flat))
    return steps


def contiguous(*arrays: Any) -> bool:
    """Whether the kernels, which take no strides, can read these arrays."""
    return all(array.flags.c_contiguous for array in arrays)


def index_launch(
    entry: str,
    element: str,
    indices: Any,
    args: tuple[Any, ...],
    size: int,
    fill: Callable[[Any], None],
    *,
    reduction: str = "",
) -> KernelLaunch:
    """Return a launch of ``gather.cu`` over `size` items; `fill` sets the struct's fields."""
    layout = np.zeros((), INDEX_LAYOUT)
    fill(layout)
    types = f"{element}, {CUDA_NUMBERS[indices.dtype.name]}"
    name = f"{entry}<{types}, {reduction}>" if reduction else f"{entry}<{types}>"
    return KernelLaunch("gather.cu", name, grid_for(size), (THREADS, 1, 1), (*args, layout))
