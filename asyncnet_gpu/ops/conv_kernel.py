"""How a convolution is handed to ``conv.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, KernelLaunch
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, THREADS, grid_for

if TYPE_CHECKING:
    from asyncnet_gpu.ops.conv_shape import ConvShape

_TILE = 64
_LARGEST_GRID = 65535
#: With no more output channels in a group than this a tile would be mostly empty.
_FEW_CHANNELS = 4

#: The struct `ConvLayout` of ``conv.cu``: three spatial axes, strides of the input in elements.
CONV_LAYOUT = np.dtype(
    [(name, np.int64) for name in ("n", "groups", "c", "m", "positions", "x_n", "x_c")]
    + [("x_stride", np.int64, (3,))]
    + [
        (name, np.int32, (3,))
        for name in ("extent", "kernel", "out", "stride", "dilation", "begin")
    ]
    + [("has_bias", np.int32), ("pad", np.int32)],
    align=True,
)


def _three(numbers: Sequence[int], fill: int) -> list[int]:
    return [fill] * (3 - len(numbers)) + list(numbers)


def conv_layout(ins: Arrays, shape: ConvShape) -> Any:
    """Return the kernel's struct; axes that are missing come first, with extent 1."""
    x, window = ins[0], shape.window
    item = x.dtype.itemsize
    layout = np.zeros((), CONV_LAYOUT)
    layout["n"], layout["groups"], layout["c"], layout["m"] = (
        shape.n, shape.groups, shape.c, shape.m,
    )  # fmt: skip
    layout["positions"] = shape.positions
    layout["x_n"], layout["x_c"] = x.strides[0] // item, x.strides[1] // item
    layout["x_stride"] = _three([s // item for s in x.strides[2:]], 0)
    layout["extent"], layout["kernel"] = _three(window.extent, 1), _three(window.kernel, 1)
    layout["out"], layout["stride"] = _three(window.out, 1), _three(window.strides, 1)
    layout["dilation"], layout["begin"] = _three(window.dilations, 1), _three(window.begin, 0)
    layout["has_bias"] = int(len(ins) > 2)
    return layout


def conv_launches(ins: Arrays, out: Any, shape: ConvShape) -> Sequence[KernelLaunch] | None:
    """Return the launch for a convolution, or None where the weights are no plain array."""
    if not all(operand.flags.c_contiguous for operand in ins[1:]):
        return None
    dtype = CUDA_NUMBERS[out.dtype.name]
    bias = ins[2] if len(ins) > 2 else ins[1]
    args = (ins[0], ins[1], bias, out, conv_layout(ins, shape))
    if shape.m <= _FEW_CHANNELS:
        entry, grid, block = f"conv_direct<{dtype}>", grid_for(out.size), (THREADS, 1, 1)
        return (KernelLaunch("conv.cu", entry, grid, block, args),)
    columns = shape.n * shape.positions
    tiles = (-(-columns // _TILE), -(-shape.m // _TILE), min(shape.groups, _LARGEST_GRID))
    if tiles[1] > _LARGEST_GRID:
        return None
    return (KernelLaunch("conv.cu", f"conv_tiled<{dtype}>", tiles, (16, 16, 1), args),)
