"""How a convolution is cut into array operations and matrix products.

On the CPU one of three ways, chosen from the shapes alone:

- *pointwise* (one tap, step 1, no padding): a matrix product straight on the input;
- *depthwise* (one input channel for each group): for each tap, multiply and add a shifted view;
- else *im2col*: the windows are laid out as columns, a block at a time, by one strided copy each,
  and multiplied by the weights straight into the output.

Blocks are sized so that columns stay in the second-level cache until the product reads them.

Sources: im2col and GEMM as in Chellapilla, Puri and Simard, "High performance convolutional neural
networks for document processing", IWFHR 2006, section 3; pads "same" as in ONNX's ``auto_pad``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Attrs, Launch, Specs
from asyncnet_gpu.ops.checks import as_int, fail
from asyncnet_gpu.ops.strided import launch_all
from asyncnet_gpu.ops.windows import Window, check_spatial, make_window
from asyncnet_gpu.specs import TensorSpec

#: Columns are laid out in blocks of about this size, but of no fewer columns than the next number:
#: measured best on a core with 2 MiB of second-level cache; narrower products waste BLAS's time.
BLOCK_BYTES = 1 << 20
_FEWEST_COLUMNS = 512


@dataclass(frozen=True, slots=True)
class ConvShape:
    """Extents of a convolution: images, groups, channels for each group in and out, window."""

    n: int
    groups: int
    c: int
    m: int
    window: Window

    @property
    def taps(self) -> int:
        """Taps of the kernel."""
        return math.prod(self.window.kernel)

    @property
    def positions(self) -> int:
        """Spatial positions of the output."""
        return math.prod(self.window.out)

    @property
    def pointwise(self) -> bool:
        """Whether every output position reads just the input position at its place."""
        window = self.window
        return self.taps == 1 and max(window.strides) == 1 and not window.padded

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads one input channel."""
        return self.c == 1 and self.groups > 1


def conv_shape(ins: Sequence[Any], attrs: Attrs, *, where: str, n_spatial: int | None) -> ConvShape:
    """Resolve extents and attributes or raise `ShapeError`; `ins` are specs or arrays."""
    x, w = ins[0], ins[1]
    n = check_spatial(len(x.shape), n_spatial, where=where, shape=x.shape)
    groups = as_int(attrs["groups"], "groups", where=where)
    if len(w.shape) != n + 2 or min(w.shape) < 1:
        fail(where, "weights do not fit the input", expected=f"(m, c / groups) and {n} kernel axes",
             got=w.shape, remedy="Lay the weights out as (m, c / groups, *kernel).")  # fmt: skip
    if groups < 1 or w.shape[0] % groups or x.shape[1] != groups * w.shape[1]:
        fail(where, f"channels do not fit groups={groups}",
             expected=f"x (n, {groups * w.shape[1]}, ...) and m divisible by groups",
             got=f"x {x.shape}, w {w.shape}",
             remedy="Weights are (m, c / groups, *kernel).")  # fmt: skip
    if len(ins) > 2 and ins[2].shape != (w.shape[0],):
        fail(where, "bias does not fit the weights", expected=(w.shape[0],), got=ins[2].shape,
             remedy="Give one number for each output channel.")  # fmt: skip
    window = make_window(
        x.shape[2:], w.shape[2:], strides=attrs["strides"], pads=attrs["pads"],
        dilations=attrs["dilations"], where=where,
    )  # fmt: skip
    return ConvShape(x.shape[0], groups, w.shape[1], w.shape[0] // groups, window)


# -- how the work is cut into blocks ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Images and output rows that are laid out at a time: whole images, or rows of one."""

    images: int
    rows: int


def _blocks(shape: ConvShape, item: int) -> _Blocks:
    row = shape.positions // shape.window.out[0]
    column_bytes = shape.groups * shape.c * shape.taps * item
    columns = max(BLOCK_BYTES // column_bytes, _FEWEST_COLUMNS)
    if columns >= shape.positions:
        return _Blocks(max(1, min(shape.n, columns // shape.positions)), shape.window.out[0])
    return _Blocks(1, max(1, min(columns // row, shape.window.out[0])))


def _padded_extent(window: Window) -> tuple[int, ...]:
    """Extents of the padded copy: what windows read, and at least the whole input's place."""
    return tuple(
        [max(n, b + e) for n, b, e in zip(window.needed, window.begin, window.extent, strict=True)]
    )


def _work_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    # float16 is summed in float32, for precision and because NumPy has no BLAS for it.
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def conv_scratch(shape: ConvShape, dtype: np.dtype[Any]) -> Specs:
    """Temporaries that the CPU needs for a convolution that has outputs."""
    work = _work_dtype(dtype)
    wide = work != dtype
    if shape.pointwise and not wide:
        return ()
    if shape.depthwise:
        channels = _depthwise_block(shape, work.itemsize)
        block = TensorSpec((channels, shape.m, *shape.window.out), work)
        return (block, block) if wide else (block,)
    return _im2col_scratch(shape, work, wide)


def _im2col_scratch(shape: ConvShape, dtype: np.dtype[Any], wide: bool) -> Specs:
    window, blocks = shape.window, _blocks(shape, dtype.itemsize)
    positions = blocks.rows * (shape.positions // window.out[0])
    channels = shape.groups * shape.c
    specs = [TensorSpec((blocks.images, channels * shape.taps * positions), dtype)]
    if window.padded:
        specs.append(TensorSpec((blocks.images, channels, *_padded_extent(window)), dtype))
    if wide:
        specs.append(TensorSpec((shape.groups * shape.m, shape.c * shape.taps), dtype))
        specs.append(TensorSpec((blocks.images * shape.groups * shape.m * positions,), dtype))
    return tuple(specs)


# -- the three ways --------------------------------------------------------------------------


def _matrix(xp: Any, w: Any, shape: ConvShape) -> tuple[Any, list[Launch]]:
    """Return the weights as (groups, m, c * taps) and what must run first if that is a copy."""
    wanted = (shape.groups, shape.m, shape.c * shape.taps)
    if w.flags.c_contiguous:
        return w.reshape(wanted), []
    packed = xp.empty(w.shape, w.dtype)
    return packed.reshape(wanted), [partial(xp.copyto, packed, w)]


def _bias_step(xp: Any, target: Any, ins: Arrays, axis: int) -> list[Launch]:
    """Return the step that adds the bias to `target`, whose channels lie on `axis`."""
    if len(ins) < 3:
        return []
    column = ins[2][(slice(None),) + (None,) * (target.ndim - axis - 1)]
    return [partial(xp.add, target, column, out=target)]


def _bind_pointwise(xp: Any, ins: Arrays, out: Any, shape: ConvShape) -> Launch:
    x, (w, steps) = ins[0], _matrix(xp, ins[1], shape)
    spatial = math.prod(shape.window.extent)
    if not x.flags.c_contiguous:
        packed = xp.empty(x.shape, x.dtype)
        steps.append(partial(xp.copyto, packed, x))
        x = packed
    pixels = x.reshape(shape.n, shape.groups, shape.c, spatial)
    product = out.reshape(shape.n, shape.groups, shape.m, spatial)
    if shape.n == shape.groups == 1:
        pixels, w, product = pixels[0, 0], w[0], product[0, 0]
    steps.append(partial(xp.matmul, w, pixels, out=product))
    return launch_all([*steps, *_bias_step(xp, out, ins, 1)])


def _depthwise_block(shape: ConvShape, item: int) -> int:
    channel_bytes = shape.m * shape.positions * item
    return max(1, min(shape.groups, BLOCK_BYTES // 4 // channel_bytes))


def _bind_depthwise(xp: Any, ins: Arrays, out: Any, shape: ConvShape, scratch: Arrays) -> Launch:
    """Add up, for each tap, the shifted input times the tap's weight, channel block by block."""
    x = ins[0][:, :, None]
    w = ins[1].reshape(shape.groups, shape.m, *shape.window.kernel)
    target = out.reshape(shape.n, shape.groups, shape.m, *shape.window.out)
    steps: list[Launch] = []
    no_axes = (None,) * len(shape.window.kernel)
    count = _depthwise_block(shape, scratch[0].dtype.itemsize)
    for image in range(shape.n):
        for first in range(0, shape.groups, count):
            part = slice(first, min(first + count, shape.groups))
            goal = target[image, part]
            size = part.stop - part.start
            total = scratch[1][:size] if len(scratch) > 1 else goal
            if len(ins) > 2:
                bias = ins[2].reshape(shape.groups, shape.m)[(part, ..., *no_axes)]
                steps.append(partial(xp.copyto, total, bias))
            else:
                steps.append(partial(total.fill, 0))
            for index, here, there in _tap_products(shape.window):
                weight = w[(part, slice(None), *index, *no_axes)]
                product = scratch[0][:size][(..., *here)]
                reached = total[(..., *here)]
                steps.append(partial(xp.multiply, x[image, part][(..., *there)], weight, product))
                steps.append(partial(xp.add, reached, product, reached))
            if total is not goal:
                steps.append(partial(xp.copyto, goal, total, casting="same_kind"))
    return launch_all(steps)


def _tap_products(
    window: Window,
) -> list[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """For each tap its index, the outputs it reaches and the inputs they read, on all axes."""
    found: list[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]] = [((), (), ())]
    for axis in range(len(window.kernel)):
        reach = window.taps(axis)
        found = [
            ((*index, tap), (*here, out), (*there, read))
            for index, here, there in found
            for tap, out, read in reach
        ]
    return found


def _windows_view(xp: Any, source: Any, shape: ConvShape, rows: slice) -> Any:
    """Return (images, c, *kernel, *out) over a padded input: entry k, o is the input at s*o+d*k."""
    window = shape.window
    out = (rows.stop - rows.start, *window.out[1:])
    source = source[:, :, rows.start * window.strides[0] :]
    spatial = source.strides[2:]
    taps = [d * s for d, s in zip(window.dilations, spatial, strict=True)]
    steps = [d * s for d, s in zip(window.strides, spatial, strict=True)]
    return xp.lib.stride_tricks.as_strided(
        source,
        (*source.shape[:2], *window.kernel, *out),
        (*source.strides[:2], *taps, *steps),
    )


def _border_fills(padded: Any, window: Window) -> list[Launch]:
    """Zero the border of the padded copy; the scratch it lies in is shared, so in every launch."""
    fills: list[Launch] = []
    inner: list[slice] = []
    for begin, extent in zip(window.begin, window.extent, strict=True):
        for part in (slice(0, begin), slice(begin + extent, None)):
            border = padded[(slice(None), slice(None), *inner, part)]
            if border.size:
                fills.append(partial(border.fill, 0))
        inner.append(slice(begin, begin + extent))
    return fills


def _bind_im2col(xp: Any, ins: Arrays, out: Any, shape: ConvShape, scratch: Arrays) -> Launch:
    window, (x, w) = shape.window, ins[:2]
    buffers = iter(scratch)
    flat = next(buffers)
    blocks = _blocks(shape, flat.dtype.itemsize)
    padded = next(buffers) if window.padded else None
    steps = [] if padded is None else _border_fills(padded, window)
    wide_w, wide_out = next(buffers, None), next(buffers, None)
    if wide_w is None:
        matrix, first = _matrix(xp, w, shape)
    else:
        matrix = wide_w.reshape(shape.groups, shape.m, -1)
        first = [partial(xp.copyto, wide_w.reshape(w.shape), w)]
    steps += first
    for image in range(0, shape.n, blocks.images):
        images = slice(image, min(image + blocks.images, shape.n))
        source = x[images]
        if padded is not None:
            count = images.stop - images.start
            inner = [slice(b, b + e) for b, e in zip(window.begin, window.extent, strict=True)]
            whole = padded[:count]
            steps.append(partial(xp.copyto, whole[(slice(None), slice(None), *inner)], source))
            source = whole
        for row in range(0, window.out[0], blocks.rows):
            rows = slice(row, min(row + blocks.rows, window.out[0]))
            view = _windows_view(xp, source, shape, rows)
            goal = out[images, :, rows]
            steps += _block_steps(xp, view, flat, matrix, goal, wide_out, ins, shape)
    return launch_all(steps)


def _block_steps(
    xp: Any, view: Any, flat: Any, matrix: Any, goal: Any, wide_out: Any, ins: Arrays,
    shape: ConvShape,
) -> list[Launch]:  # fmt: skip
    """Lay out the columns of one block, multiply, add the bias."""
    images = view.shape[0]
    columns = flat.reshape(-1)[: view.size].reshape(view.shape)
    positions = math.prod(goal.shape[2:])
    right = columns.reshape(images, shape.groups, -1, positions)
    sizes = (images, shape.groups, shape.m, positions)
    if wide_out is None:
        target, total = _as_products(goal, sizes), goal
    else:
        total = wide_out[: math.prod(sizes)].reshape(goal.shape)
        target = total.reshape(sizes)
    if images == shape.groups == 1:
        matrix, right, target = matrix[0], right[0, 0], target[0, 0]
    steps: list[Launch] = [
        partial(xp.copyto, columns, view),
        partial(xp.matmul, matrix, right, out=target),
        *_bias_step(xp, total, ins, 1),
    ]
    if wide_out is not None:
        steps.append(partial(xp.copyto, goal, total, casting="same_kind"))
    return steps


def _as_products(goal: Any, sizes: tuple[int, ...]) -> Any:
    """Return rows of an output (n, m, rows, ...) as (n, groups, m / groups, positions), a view."""
    image, channel, item = goal.strides[0], goal.strides[1], goal.dtype.itemsize
    strides = (image, channel * sizes[2], channel, item)
    if isinstance(goal, np.ndarray):
        return np.lib.stride_tricks.as_strided(goal, sizes, strides)
    return type(goal)(sizes, goal.dtype, goal.data, strides)


def bind_conv(xp: Any, ins: Arrays, out: Any, shape: ConvShape, scratch: Arrays) -> Launch:
    """Return the launch of a convolution; `scratch` is as `conv_scratch` says."""
    if not scratch:
        return _bind_pointwise(xp, ins, out, shape)
    way = _bind_depthwise if shape.depthwise else _bind_im2col
    return way(xp, ins, out, shape, scratch)
