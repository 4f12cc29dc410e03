"""Launches of ``elementwise.cu``: contiguous arrays in packs, the rest by strides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Attrs, KernelLaunch
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, MAX_AXES, THREADS, grid_for

#: CUDA types of every dtype.
CUDA_TYPES = {**CUDA_NUMBERS, "bool": "bool"}

#: The type in which each dtype is computed: `Compute` of ``elementwise.cuh``.
_COMPUTE: dict[str, Any] = {
    "bool": np.int32, "int8": np.int32, "int16": np.int32, "uint8": np.uint32,
    "uint16": np.uint32, "float16": np.float32,
}  # fmt: skip

#: The struct `Layout` of ``elementwise.cuh``: strides in elements.
LAYOUT = np.dtype(
    [
        ("size", np.int64),
        ("ndim", np.int32),
        ("narrow", np.int32),
        ("shape", np.int64, (MAX_AXES,)),
        ("stride", np.int64, (3, MAX_AXES)),
    ],
    align=True,
)

#: Indices below this are divided in 32 bits.
_NARROW = 1 << 31


def compute_scalar(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return a parameter in the type in which the kernels compute `dtype`."""
    return _COMPUTE.get(dtype.name, dtype.type)(value)


def element_strides(array: Any, shape: Sequence[int]) -> list[int]:
    """Strides in elements of an array broadcast to `shape`: 0 on the axes that it lacks."""
    missing = len(shape) - array.ndim
    item = array.dtype.itemsize
    return [0] * missing + [
        0 if extent == 1 else stride // item
        for extent, stride in zip(array.shape, array.strides, strict=True)
    ]


def merged(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Drop axes of extent 1 and merge neighbours that are one run for every operand.

    Returns the extent and the stride of each operand for what is left, outermost first.

    >>> merged((2, 3, 4), [(12, 4, 1), (0, 0, 0)])
    [(24, 1, 0)]
    """
    axes: list[tuple[int, ...]] = []
    for extent, *steps in zip(shape, *strides, strict=True):
        if extent == 1:
            continue
        if axes and all(
            outer == step * extent for outer, step in zip(axes[-1][1:], steps, strict=True)
        ):
            axes[-1] = (axes[-1][0] * extent, *steps)
        else:
            axes.append((extent, *steps))
    return axes


def pack_layout(size: int, axes: Sequence[tuple[int, ...]]) -> Any | None:
    """Return merged axes as the struct, or None where there are more than it holds."""
    if len(axes) > MAX_AXES:
        return None
    layout = np.zeros((), LAYOUT)
    layout["size"], layout["ndim"], layout["narrow"] = size, len(axes), size < _NARROW
    for i, (extent, *steps) in enumerate(axes):
        layout["shape"][i] = extent
        for k, step in enumerate(steps):
            layout["stride"][k, i] = step
    return layout


def layout_of(ins: Arrays, out: Any) -> Any | None:
    """Return the layout of inputs broadcast to a contiguous output, or None."""
    strides = [element_strides(x, out.shape) for x in ins]
    return pack_layout(out.size, merged(out.shape, strides))


def _launch(entry: str, size: int, args: tuple[Any, ...]) -> tuple[KernelLaunch, ...]:
    return (
        KernelLaunch(
            file="elementwise.cu",
            entry=entry,
            grid=grid_for(size),
            block=(THREADS, 1, 1),
            args=args,
        ),
    )


def _flat(x: Any, out: Any) -> bool:
    return bool(x.shape == out.shape and x.flags.c_contiguous)


def unary_launch(
    function: str, x: Any, out: Any, p: float = 0, q: float = 0
) -> tuple[KernelLaunch, ...] | None:
    """Launch ``out = function(x; p, q)``; `x` broadcasts to `out`."""
    if not out.size:
        return ()
    types = f"{CUDA_TYPES[x.dtype.name]}, {CUDA_TYPES[out.dtype.name]}, {function}"
    params = (compute_scalar(p, x.dtype), compute_scalar(q, x.dtype))
    if _flat(x, out):
        return _launch(f"unary<{types}>", out.size, (x, out, np.int64(out.size), *params))
    layout = layout_of((x,), out)
    if layout is None:
        return None
    return _launch(f"unary_strided<{types}>", out.size, (x, out, layout, *params))


def binary_launch(function: str, a: Any, b: Any, out: Any) -> tuple[KernelLaunch, ...] | None:
    """Launch ``out = function(a, b)``; the inputs broadcast to `out`."""
    if not out.size:
        return ()
    types = f"{CUDA_TYPES[a.dtype.name]}, {CUDA_TYPES[out.dtype.name]}, {function}"
    one = 1 if a.size == 1 else 2 if b.size == 1 else 0
    if (one == 1 or _flat(a, out)) and (one == 2 or _flat(b, out)):
        args = (a, b, out, np.int64(out.size), np.int32(one))
        return _launch(f"binary<{types}>", out.size, args)
    layout = layout_of((a, b), out)
    if layout is None:
        return None
    return _launch(f"binary_strided<{types}>", out.size, (a, b, out, layout))


Kernel = Callable[[Arrays, Arrays, Attrs, Arrays], Sequence[KernelLaunch] | None]


def unary_kernel(
    function: str, parameters: Callable[[Attrs, np.dtype[Any]], tuple[Any, Any]] | None = None
) -> Kernel:
    """Return `Op.kernel` of a function of one array, with its parameters from the attributes."""

    def kernel(
        ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        p, q = parameters(attrs, ins[0].dtype) if parameters else (0, 0)
        return unary_launch(function, ins[0], outs[0], p, q)

    return kernel


def binary_kernel(function: str) -> Kernel:
    """Return `Op.kernel` of a function of two arrays."""

    def kernel(
        ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        return binary_launch(function, ins[0], ins[1], outs[0])

    return kernel
