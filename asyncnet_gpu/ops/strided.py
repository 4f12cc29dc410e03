"""Copies between strided arrays: how views that a layout forbids, joins and pads become bytes.

On CUDA one kernel (``copy.cu``) copies any strided array to any other of the same shape; it knows
elements only by their size. Axes that lie behind one another in both arrays are merged first, so
that a contiguous copy is one axis long.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, final

import numpy as np

from asyncnet_gpu.ops.base import KernelLaunch, Launch

#: Most axes after merging that the kernel takes; the same number stands in ``copy.cu``.
MAX_AXES = 8
THREADS = 256
_LARGEST_GRID_Y = 65535
#: Blocks of `THREADS` that fill a large GPU.
_BUSY_BLOCKS = 1024

#: CUDA types that carry elements of 1, 2, 4 and 8 bytes.
CARRIERS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long"}

#: CUDA types of the dtypes that have arithmetic.
CUDA_NUMBERS = {
    "float16": "__half", "float32": "float", "float64": "double",
    "int8": "signed char", "int16": "short", "int32": "int", "int64": "long long",
    "uint8": "unsigned char", "uint16": "unsigned short", "uint32": "unsigned int",
    "uint64": "unsigned long long",
}  # fmt: skip

#: The struct `CopyLayout` of ``copy.cu``: strides in elements.
COPY_LAYOUT = np.dtype(
    [
        ("size", np.int64),
        ("ndim", np.int32),
        ("pad", np.int32),
        ("shape", np.int64, (MAX_AXES,)),
        ("src", np.int64, (MAX_AXES,)),
        ("dst", np.int64, (MAX_AXES,)),
    ],
    align=True,
)


def nothing() -> None:
    """Launch of a node whose outputs have no element."""


@final
class Launches:
    """Several launches as one; a backend may look at `calls` and carry them out another way."""

    __slots__ = ("calls",)

    def __init__(self, calls: Sequence[Launch]) -> None:
        self.calls = tuple(calls)

    def __call__(self) -> None:
        """Carry them out, one after the other."""
        for call in self.calls:
            call()


def launch_all(launches: Sequence[Launch]) -> Launch:
    """Return one launch for several: itself when there is only one."""
    if len(launches) == 1:
        return launches[0]
    return Launches(launches) if launches else nothing


def bind_copies(xp: Any, pairs: Sequence[tuple[Any, Any]]) -> Launch:
    """Return a launch that copies each ``(source, target)`` of equal shapes."""
    return launch_all([partial(xp.copyto, target, source) for source, target in pairs])


def merged_axes(
    shape: Sequence[int], src: Sequence[int], dst: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Drop axes of extent 1 and merge neighbours that are one run in both arrays.

    Returns extent, source stride and target stride of what is left, outermost first.

    >>> merged_axes((2, 3, 4), (12, 4, 1), (12, 4, 1))
    [(24, 1, 1)]
    """
    axes: list[tuple[int, int, int]] = []
    for extent, s, d in zip(shape, src, dst, strict=True):
        if extent == 1:
            continue
        if axes and axes[-1][1] == s * extent and axes[-1][2] == d * extent:
            axes[-1] = (axes[-1][0] * extent, s, d)
        else:
            axes.append((extent, s, d))
    return axes


def grid_for(size: int, threads: int = THREADS) -> tuple[int, int, int]:
    """Blocks that cover `size` elements; the kernels loop, so the number is bounded."""
    return (max(1, min(-(-size // threads), 1 << 16)), 1, 1)


Extent = tuple[int, int, int]


def plane_grid(size: int, planes: int, width: int = 0) -> tuple[Extent, Extent]:
    """Return grid and block of a kernel whose threads have a place in x and loop over planes in y.

    What a thread finds out about its place serves all its planes; they are shared out among more
    threads only until the GPU is busy. A block is `width` places wide, or as wide as suits `size`.
    """
    width = width or min(THREADS, 1 << max(0, size - 1).bit_length())
    rows = THREADS // width
    blocks = min(-(-size // width), 1 << 16)
    enough = -(-_BUSY_BLOCKS // blocks)
    shared = max(1, min(-(-planes // rows), enough, _LARGEST_GRID_Y))
    return (blocks, shared, 1), (width, rows, 1)


def copy_launch(src: Any, dst: Any) -> KernelLaunch | None:
    """Return the kernel launch that copies `src` into `dst` (equal shapes and dtypes).

    None where there are more than `MAX_AXES` separate axes: CuPy then does it.
    """
    item = dst.dtype.itemsize
    axes = merged_axes(
        dst.shape, [s // item for s in src.strides], [s // item for s in dst.strides]
    )
    if len(axes) > MAX_AXES:
        return None
    layout = np.zeros((), COPY_LAYOUT)
    layout["size"], layout["ndim"] = dst.size, len(axes)
    for i, (extent, s, d) in enumerate(axes):
        layout["shape"][i], layout["src"][i], layout["dst"][i] = extent, s, d
    return KernelLaunch(
        file="copy.cu",
        entry=f"strided_copy<{CARRIERS[item]}>",
        grid=grid_for(dst.size),
        block=(THREADS, 1, 1),
        args=(src, dst, layout),
    )


def copy_launches(pairs: Sequence[tuple[Any, Any]]) -> tuple[KernelLaunch, ...] | None:
    """Return a kernel launch for each ``(source, target)`` that has elements, or None."""
    launches = [copy_launch(source, target) for source, target in pairs if target.size]
    if any(launch is None for launch in launches):
        return None
    return tuple([launch for launch in launches if launch is not None])
