"""Transposed convolution: the gradient of a convolution with respect to its input, as an operator.

On the CPU one matrix product makes, for each input position, what it adds to every tap's output;
then the taps are added up, one strided view each. On CUDA each output gathers its own sum.

Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.checks import as_int, as_ints, fail
from asyncnet_gpu.ops.conv_bind import BLOCK_BYTES
from asyncnet_gpu.ops.conv_kernel import conv_layout
from asyncnet_gpu.ops.conv_shape import ConvShape
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, THREADS, grid_for, launch_all, nothing
from asyncnet_gpu.ops.windows import WINDOW_ATTRS, Window, check_spatial, explicit_pads, spread
from asyncnet_gpu.specs import TensorSpec, spec

_WHERE = "conv_transpose"


def transpose_shape(ins: Sequence[Any], attrs: Attrs) -> ConvShape:
    """Resolve extents and attributes or raise `ShapeError`; `ins` are specs or arrays.

    The window is that of the convolution which this operator transposes: its input (`extent`) is
    our output, its output (`out`) our input.
    """
    x, w = ins[0], ins[1]
    n = check_spatial(len(x.shape), None, where=_WHERE, shape=x.shape)
    groups = as_int(attrs["groups"], "groups", where=_WHERE)
    if len(w.shape) != n + 2 or min(w.shape) < 1:
        fail(_WHERE, "weights do not fit the input",
             expected=f"(c, m / groups) and {n} kernel axes", got=w.shape,
             remedy="Lay the weights out as (c, m / groups, *kernel).")  # fmt: skip
    if groups < 1 or w.shape[0] % groups or x.shape[1] != w.shape[0]:
        fail(_WHERE, f"channels do not fit groups={groups}",
             expected=f"x (n, {w.shape[0]}, ...), divisible by groups",
             got=f"x {x.shape}, w {w.shape}",
             remedy="Weights are (c, m / groups, *kernel).")  # fmt: skip
    if len(ins) > 2 and ins[2].shape != (groups * w.shape[1],):
        fail(_WHERE, "bias does not fit the weights", expected=(groups * w.shape[1],),
             got=ins[2].shape, remedy="Give one number for each output channel.")  # fmt: skip
    window = _window(x.shape[2:], w.shape[2:], attrs)
    return ConvShape(x.shape[0], groups, w.shape[0] // groups, w.shape[1], window)


def _window(extent: tuple[int, ...], kernel: tuple[int, ...], attrs: Attrs) -> Window:
    n = len(extent)
    steps = spread(attrs["strides"], "strides", n, 1, where=_WHERE)
    gaps = spread(attrs["dilations"], "dilations", n, 1, where=_WHERE)
    begin, end = explicit_pads(attrs["pads"], n, where=_WHERE)
    extra = as_ints(attrs["output_padding"], "output_padding", where=_WHERE)
    extra = extra * n if len(extra) == 1 else extra
    if len(extra) != n or min(extra) < 0:
        fail(_WHERE, f"bad output_padding={attrs['output_padding']!r}",
             expected=f"{n} numbers of at least 0", got=extra,
             remedy="Give one for every spatial axis, or one for all.")  # fmt: skip
    out = tuple(
        [
            (i - 1) * s + (k - 1) * d + 1 + p - b - e
            for i, s, k, d, p, b, e in zip(
                extent, steps, kernel, gaps, extra, begin, end, strict=True
            )
        ]
    )
    if min(out) < 1:
        fail(_WHERE, "padding cuts the whole output off", expected="at least 1 position left",
             got=out, remedy="Pad less.")  # fmt: skip
    return Window(kernel, steps, gaps, begin, end, out, extent)


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    dtype = same_dtype(ins, where=_WHERE)
    shape = transpose_shape(ins, attrs)
    return (TensorSpec((shape.n, shape.groups * shape.m, *shape.window.extent), dtype),)


# -- the CPU ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Groups, and output channels of a group, that are worked on at a time."""

    groups: int
    channels: int


def _blocks(shape: ConvShape, item: int) -> _Blocks:
    channel_bytes = max(1, shape.taps * shape.positions * item)
    channels = max(1, min(shape.m, BLOCK_BYTES // channel_bytes))
    if channels < shape.m:
        return _Blocks(1, channels)
    return _Blocks(max(1, min(shape.groups, BLOCK_BYTES // (channel_bytes * shape.m))), channels)


def _cpu_scratch(shape: ConvShape, dtype: np.dtype[Any]) -> Specs:
    """Columns; for float16 an image, the weights and a block of the output in float32."""
    work = np.dtype(np.float32) if dtype == np.float16 else dtype
    blocks = _blocks(shape, work.itemsize)
    n_channels = blocks.groups * blocks.channels
    columns = TensorSpec((n_channels * shape.taps * shape.positions,), work)
    if work == dtype:
        return (columns,)
    c = shape.groups * shape.c
    return (
        columns,
        TensorSpec((1, c, *shape.window.out), work),
        TensorSpec((c, shape.m, *shape.window.kernel), work),
        TensorSpec((n_channels * math.prod(shape.window.extent),), work),
    )


def _scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    if device_kind != "cpu" or not outs[0].size:
        return ()
    return _cpu_scratch(transpose_shape(ins, attrs), ins[0].dtype)


def _parts(extent: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, extent)) for first in range(0, extent, size)]


def _packed(xp: Any, array: Any, room: Any) -> tuple[Any, list[Launch]]:
    """Return the array, or a contiguous copy (in `room` where given) and the step that makes it."""
    if room is None and array.flags.c_contiguous:
        return array, []
    room = xp.empty(array.shape, array.dtype) if room is None else room
    return room, [partial(xp.copyto, room, array)]


def _block_steps(
    xp: Any, left: Any, right: Any, columns: Any, goal: Any, room: Any, bias: Any, window: Window
) -> list[Launch]:
    """Return steps for a block: `goal` is (groups, channels, *output), `room` it in float32."""
    sizes = (*goal.shape[:2], *window.kernel, *window.out)
    rows = math.prod(sizes[1 : 2 + len(window.kernel)])
    shape = (goal.shape[0], rows, math.prod(window.out))
    product = columns[: math.prod(sizes)].reshape(shape)
    spread_out = product.reshape(sizes)
    total = goal if room is None else room[: goal.size].reshape(goal.shape)
    steps: list[Launch] = [partial(xp.matmul, left, right, out=product)]
    if bias is None:
        steps.append(partial(total.fill, 0))
    else:
        steps.append(partial(xp.copyto, total, bias[(..., *(None,) * len(window.out))]))
    for taps in itertools.product(*[window.taps(axis) for axis in range(len(window.out))]):
        read = spread_out[(..., *[tap for tap, _, _ in taps], *[here for _, here, _ in taps])]
        reached = total[(..., *[there for _, _, there in taps])]
        steps.append(partial(xp.add, reached, read, reached))
    if total is not goal:
        steps.append(partial(xp.copyto, goal, total, casting="same_kind"))
    return steps


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (out,) = outs
    if not out.size:
        return nothing
    shape = transpose_shape(ins, attrs)
    if not scratch:
        # A CUDA node whose layout has no kernel brings its own temporaries, once.
        scratch = [xp.empty(s.shape, s.dtype) for s in _cpu_scratch(shape, out.dtype)]
    columns, wide_x, wide_w, wide_out = (*scratch, None, None, None)[:4]
    w, steps = _packed(xp, ins[1], wide_w)
    matrix = w.reshape(shape.groups, shape.c, shape.m * shape.taps)
    bias = ins[2].reshape(shape.groups, shape.m) if len(ins) > 2 else None
    blocks = _blocks(shape, columns.dtype.itemsize)
    for image in range(shape.n):
        x, pack = _packed(xp, ins[0][image : image + 1], wide_x)
        steps += pack
        pixels = x.reshape(shape.groups, shape.c, shape.positions)
        target = out[image].reshape(shape.groups, shape.m, *shape.window.extent)
        for groups in _parts(shape.groups, blocks.groups):
            for part in _parts(shape.m, blocks.channels):
                rows = slice(part.start * shape.taps, part.stop * shape.taps)
                left = matrix[groups, :, rows].swapaxes(1, 2)
                steps += _block_steps(
                    xp, left, pixels[groups], columns, target[groups, part], wide_out,
                    None if bias is None else bias[groups, part], shape.window,
                )  # fmt: skip
    return launch_all(steps)


# -- the rest --------------------------------------------------------------------------------


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (out,) = outs
    if not out.size:
        return ()
    if not all(operand.flags.c_contiguous for operand in ins[1:]):
        return None
    layout = conv_layout(ins, transpose_shape(ins, attrs))
    bias = ins[2] if len(ins) > 2 else ins[1]
    entry = f"conv_transpose<{CUDA_NUMBERS[out.dtype.name]}>"
    args = (ins[0], ins[1], bias, out, layout)
    return (KernelLaunch("conv.cu", entry, grid_for(out.size), (THREADS, 1, 1), args),)


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x, w = (np.asarray(a, np.float64) for a in ins[:2])
    shape = transpose_shape([x, w], attrs)
    window = shape.window
    out = np.zeros((shape.n, shape.groups * shape.m, *window.extent))
    for image, channel, *position in np.ndindex(x.shape):
        group = channel // shape.c
        for m, *tap in np.ndindex(w.shape[1:]):
            at = [
                i * s + k * d - b
                for i, s, k, d, b in zip(
                    position, window.strides, tap, window.dilations, window.begin, strict=True
                )
            ]
            if all(0 <= o < e for o, e in zip(at, window.extent, strict=True)):
                added = x[(image, channel, *position)] * w[(channel, m, *tap)]
                out[(image, group * shape.m + m, *at)] += added
    if len(ins) > 2:
        out += np.asarray(ins[2], np.float64)[(slice(None),) + (None,) * len(window.out)]
    return (out,)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    per_input = math.prod(ins[1].shape[1:])
    moved = sum(s.nbytes for s in (*ins, *outs))
    return Cost(2.0 * ins[0].size * per_input, float(moved))


def _f16(*shape: int) -> TensorSpec:
    return spec(shape, "float16")


_CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-4}
_HALF: dict[str, Any] = {"rtol": 2e-3, "atol": 2e-2}

OPS = (
    Op(
        name="conv_transpose",
        kind="ConvTranspose",
        doc="""Transposed convolution over 1 to 3 spatial axes.

        Each input position adds ``x[n, c, i] * w[c, m, k]`` to output position
        ``strides * i + dilations * k - begin``.

        Parameters
        ----------
        x: (n, c, *spatial) float
        w: (c, m / groups, *kernel), same dtype
        bias: (m,), same dtype, optional
        strides, dilations
            One number for each spatial axis or one for all; None means 1.
        pads
            Positions cut off the output: one number, one for each axis, or all begins and then all
            ends.
        output_padding
            Positions added at the end of each axis.
        groups
            Divides c.

        Returns
        -------
        (n, m, *out) with
        ``out = (in - 1) * stride + (kernel - 1) * dilation + 1 + output_padding - begin - end``.
        float16 is summed in float32.

        Raises
        ------
        ShapeError
            If channels, groups, bias or padding do not fit.
        """,
        n_inputs=(2, 3),
        attrs={**WINDOW_ATTRS, "groups": 1, "output_padding": 0},
        infer=_infer,
        bind=_bind,
        kernel=_kernel,
        reference=_reference,
        scratch=_scratch,
        cost=_cost,
        dtypes=FLOATS,
        cases=(
            OpCase("1d", (f32(2, 3, 5), f32(3, 4, 3)), **_CLOSE),
            OpCase("plain", (f32(2, 3, 4, 5), f32(3, 2, 3, 2), f32(2)), **_CLOSE),
            OpCase("strides", (f32(1, 3, 4, 5), f32(3, 2, 4, 4), f32(2)),
                   {"strides": 2, "pads": 1}, **_CLOSE),
            OpCase("gaps", (f32(1, 2, 3, 4), f32(2, 3, 2, 2), f32(3)),
                   {"strides": 3, "output_padding": (2, 1)}, **_CLOSE),
            OpCase("dilations", (f32(1, 2, 4, 4), f32(2, 3, 3, 2)),
                   {"dilations": (2, 3), "pads": (1, 0, 2, 1)}, **_CLOSE),
            OpCase("grouped", (f32(2, 6, 3, 4), f32(6, 2, 3, 3), f32(6)),
                   {"groups": 3, "strides": 2, "pads": 1}, **_CLOSE),
            OpCase("depthwise", (f32(1, 5, 4, 4), f32(5, 1, 4, 4)),
                   {"groups": 5, "strides": 2, "pads": 1}, **_CLOSE),
            OpCase("3d", (f32(1, 2, 2, 3, 3), f32(2, 2, 2, 3, 2), f32(2)), {"strides": 2},
                   **_CLOSE),
            OpCase("half", (_f16(2, 4, 3, 4), _f16(4, 2, 3, 3), _f16(4)),
                   {"groups": 2, "strides": 2}, **_HALF),
            OpCase("double", (spec((1, 2, 3, 3), "float64"), spec((2, 2, 3, 3), "float64")),
                   rtol=1e-12, atol=1e-12),
            OpCase("no_images", (f32(0, 3, 4, 5), f32(3, 2, 3, 2)), rtol=0, atol=0),
            OpCase("no_positions", (f32(1, 2, 0, 3), f32(2, 2, 3, 3)), rtol=0, atol=0),
            OpCase("blocks", (f32(1, 1, 24, 24), f32(1, 40, 4, 4)), {"strides": 2, "pads": 1},
                   **_CLOSE),
            OpCase("layer", (f32(1, 16, 14, 14), f32(16, 16, 4, 4), f32(16)),
                   {"strides": 2, "pads": 1}, perf=True, **_CLOSE),
        ),
    ),
)  # fmt: skip
