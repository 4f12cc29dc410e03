"""How a convolution is cut into array operations and matrix products.

One of four ways, chosen from the shapes alone:

- *pointwise* (one tap, step 1, no padding): a matrix product straight on the input;
- *filter* (`conv_filter`): one long filter over one signal;
- *shifted* (`conv_shift`), where that is estimated to be faster: depthwise, or few channels out;
- else *im2col*: the windows are laid out as columns, a block at a time, by one strided copy each,
  and multiplied by the weights straight into the output.

Blocks are sized so that columns stay in the second-level cache until the product reads them: some
images, groups, or rows of one image, whose padded copy is then made rows by rows as well.
Depthwise convolution goes the same way, many groups at a time: 1.5 to 3 times faster, measured,
than adding up shifted views tap by tap.

Source: im2col and GEMM as in Chellapilla, Puri and Simard, "High performance convolutional neural
networks for document processing", IWFHR 2006, section 3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Launch, Specs
from asyncnet_gpu.ops.conv_filter import filter_scratch, filter_steps, is_filter
from asyncnet_gpu.ops.conv_shape import ConvShape
from asyncnet_gpu.ops.conv_shift import Shift, ShiftedConv, choose, shift_scratch
from asyncnet_gpu.ops.strided import launch_all
from asyncnet_gpu.ops.windows import Window
from asyncnet_gpu.specs import TensorSpec

#: Columns are laid out in blocks of about this size, but of no fewer columns than the next number:
#: measured best on a core with 2 MiB of second-level cache; narrower products waste BLAS's time.
BLOCK_BYTES = 1 << 20
_FEWEST_COLUMNS = 512

#: Columns of few terms are read once and hardly computed with: shorter blocks stay nearer to the
#: core, and are measured 1.3 to 1.7 times faster.
_THIN_BYTES, _THIN_TERMS = 1 << 17, 64

#: A pointwise product is cut into blocks of about this size where something follows it.
_FINISHED_BYTES = 1 << 19

#: More images and groups than this go into one batched product.
_MOST_PRODUCTS = 16

#: What is done to each block of the output, last of all, while it is in the cache.
Finish = Callable[[Any], Sequence[Launch]]


def nothing_more(block: Any) -> Sequence[Launch]:
    """Nothing follows the convolution."""
    return ()


# -- how the work is cut into blocks ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Blocks:
    """What is laid out at a time: whole images, or some groups of one, or rows of one group."""

    images: int
    groups: int
    rows: int


def _blocks(shape: ConvShape, item: int) -> _Blocks:
    rows = shape.window.out[0]
    group_bytes = shape.c * shape.taps * shape.positions * item
    image_bytes = shape.groups * group_bytes
    if image_bytes <= BLOCK_BYTES:
        return _Blocks(max(1, min(shape.n, BLOCK_BYTES // max(1, image_bytes))), shape.groups, rows)
    if group_bytes <= BLOCK_BYTES:
        return _Blocks(1, min(shape.groups, BLOCK_BYTES // group_bytes), rows)
    terms = shape.c * shape.taps
    block = _THIN_BYTES if terms <= _THIN_TERMS else BLOCK_BYTES
    columns = max(block // (terms * item), _FEWEST_COLUMNS)
    return _Blocks(1, 1, max(1, min(rows, columns * rows // shape.positions)))


def _padded_extent(window: Window) -> tuple[int, ...]:
    """Extents of the padded copy: what windows read, and at least the whole input's place."""
    return tuple(
        [max(n, b + e) for n, b, e in zip(window.needed, window.begin, window.extent, strict=True)]
    )


def _phases(window: Window) -> int:
    """Return into how many phases rows are sorted before windows are read, 1 for none.

    With a step of s every s-th element of a row belongs to one phase, in which the reads of a tap
    are neighbours. Measured: 1.1 to 1.5 times faster for kernels of 5 and 7 with steps of 2, and
    slower where windows overlap less.
    """
    step = window.strides[-1]
    return step if window.kernel[-1] > 2 * step and window.dilations[-1] == 1 else 1


def _copies_rows(window: Window, blocks: _Blocks, channels: int, item: int) -> bool:
    """Whether the copy of the input is made for each block of rows: as a whole it fills the cache.

    Rows that two blocks read are copied twice. A signal has no rows, and its one axis may be sorted
    by phase.
    """
    if len(window.out) == 1:
        return False
    whole = math.prod(_padded_extent(window)) * channels * item
    return blocks.rows < window.out[0] and whole > BLOCK_BYTES // 2


def _input_rows(window: Window, n_rows: int) -> int:
    """Return how many rows of the input a number of rows of the output read."""
    return (n_rows - 1) * window.strides[0] + (window.kernel[0] - 1) * window.dilations[0] + 1


def _copy_extent(window: Window, n_rows: int | None) -> tuple[int, ...]:
    """Extents of the copy of the input: padded, its rows sorted by phase, for some rows or all."""
    first, *others = _padded_extent(window)
    *lead, last = (first if n_rows is None else _input_rows(window, n_rows)), *others
    phases = _phases(window)
    return (*lead, last) if phases == 1 else (*lead, phases, -(-last // phases))


def _work_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    # float16 is summed in float32, for precision and because NumPy has no BLAS for it.
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def conv_scratch(shape: ConvShape, dtype: np.dtype[Any]) -> Specs:
    """Temporaries that a convolution with outputs needs outside of a kernel.

    Columns; a copy of the input where windows reach beyond it or its rows are sorted; for float16
    the weights and a block of the output in float32.
    """
    work = _work_dtype(dtype)
    if shape.pointwise and work == dtype:
        return ()
    if is_filter(shape, dtype):
        return filter_scratch(shape, dtype)
    way = choose(shape, dtype)
    if way is not None:
        return shift_scratch(shape, way, dtype)
    window, blocks = shape.window, _blocks(shape, work.itemsize)
    positions = blocks.rows * (shape.positions // window.out[0])
    channels = blocks.groups * shape.c
    specs = [TensorSpec((blocks.images * channels * shape.taps * positions,), work)]
    if window.padded or _phases(window) > 1:
        n_rows = blocks.rows if _copies_rows(window, blocks, channels, work.itemsize) else None
        specs.append(TensorSpec((blocks.images, channels, *_copy_extent(window, n_rows)), work))
    if work != dtype:
        specs.append(TensorSpec((shape.groups * shape.m, shape.c, *window.kernel), work))
        specs.append(TensorSpec((blocks.images * blocks.groups * shape.m * positions,), work))
    return tuple(specs)


# -- the ways ----------------------------------------------------------------------------


def _packed(xp: Any, array: Any) -> tuple[Any, list[Launch]]:
    """Return the array, or where it is strided a contiguous copy and the step that makes it."""
    if array.flags.c_contiguous:
        return array, []
    packed = xp.empty(array.shape, array.dtype)
    return packed, [partial(xp.copyto, packed, array)]


def _innermost_stride(array: Any) -> int:
    """Return the stride of the last axis that is longer than 1, in bytes."""
    longer = [s for s, e in zip(array.strides, array.shape, strict=True) if e > 1]
    return int(longer[-1]) if longer else int(array.dtype.itemsize)


def _bias_step(xp: Any, target: Any, bias: Any) -> list[Launch]:
    """Return the step that adds the bias to `target`, whose channels lie on axis 1."""
    if bias is None:
        return []
    return [partial(xp.add, target, bias[(slice(None),) + (None,) * (target.ndim - 2)], target)]


def _bind_pointwise(xp: Any, ins: Arrays, out: Any, shape: ConvShape, finish: Finish) -> Launch:
    x, pack_x = _packed(xp, ins[0])
    w, pack_w = _packed(xp, ins[1])
    pixels = x.reshape(shape.n, shape.groups, shape.c, shape.positions)
    matrix = w.reshape(shape.groups, shape.m, shape.c)
    product = out.reshape(shape.n, shape.groups, shape.m, shape.positions)
    bias = ins[2] if len(ins) > 2 else None
    steps = [*pack_x, *pack_w]
    if shape.n * shape.groups > _MOST_PRODUCTS:
        steps.append(partial(xp.matmul, matrix, pixels, out=product))
        return launch_all([*steps, *_bias_step(xp, out, bias), *finish(out)])
    # Blocks of columns: bias and what follows find the block in the cache.
    size = max(_FEWEST_COLUMNS, _FINISHED_BYTES // (shape.m * out.dtype.itemsize))
    if bias is None and finish is nothing_more:
        size = shape.positions
    for image, group in itertools.product(range(shape.n), range(shape.groups)):
        own = None if bias is None else bias[group * shape.m : (group + 1) * shape.m]
        for part in _parts(shape.positions, size):
            goal = product[image, group][:, part]
            steps.append(partial(xp.matmul, matrix[group], pixels[image, group][:, part], out=goal))
            steps += _bias_step(xp, goal[None], own)
            steps += finish(goal)
    return launch_all(steps)


class _Im2col:
    """State of one binding: buffers, and the steps made so far."""

    def __init__(
        self, xp: Any, ins: Arrays, out: Any, shape: ConvShape, scratch: Arrays, finish: Finish
    ) -> None:
        self.xp, self.shape, self.out, self.finish = xp, shape, out, finish
        pack_x: list[Launch] = []
        self.x = ins[0]
        if _innermost_stride(self.x) != self.x.dtype.itemsize:
            # Rows of windows would be read element by element, once for each tap.
            self.x, pack_x = _packed(xp, self.x)
        self.bias = ins[2] if len(ins) > 2 else None
        buffers = iter(scratch)
        self.columns = next(buffers)
        self.blocks = _blocks(shape, self.columns.dtype.itemsize)
        self.phases = _phases(shape.window)
        self.copy = next(buffers) if shape.window.padded or self.phases > 1 else None
        self.by_rows = self.copy is not None and _copies_rows(
            shape.window, self.blocks, self.copy.shape[1], self.columns.dtype.itemsize
        )
        w, self.wide_out = next(buffers, None), next(buffers, None)
        self.steps: list[Launch] = []
        if w is None:
            w, self.steps = _packed(xp, ins[1])
        else:
            self.steps.append(partial(xp.copyto, w, ins[1]))
        self.steps = [*pack_x, *self.steps]
        self.matrix = w.reshape(shape.groups, shape.m, shape.c * shape.taps)
        if self.copy is not None and shape.window.padded:
            self.steps += (
                [partial(self.copy.fill, 0)]
                if self.phases > 1 or self.by_rows
                else _border_fills(self.copy, shape.window)
            )

    def source(self, images: slice, groups: slice, rows: slice | None = None) -> Any:
        """Return the input of a block: padded where windows reach beyond it, sorted by phase.

        With `rows`, what those rows of the output read.
        """
        channels = slice(groups.start * self.shape.c, groups.stop * self.shape.c)
        part = self.x[images, channels]
        if self.copy is None:
            return part
        window = self.shape.window
        whole = self.copy[: part.shape[0], : part.shape[1]]
        inner = [slice(b, b + e) for b, e in zip(window.begin, window.extent, strict=True)]
        if rows is not None:
            whole, part, inner[0] = self._rows(whole, part, rows)
        if self.phases == 1:
            middle = whole[(slice(None), slice(None), *inner)]
            self.steps.append(partial(self.xp.copyto, middle, part))
            return whole
        begin = window.begin[-1]
        for phase in range(self.phases):
            first = max(0, -((phase - begin) // self.phases))
            start = first * self.phases + phase - begin
            read = part[..., start :: self.phases]
            places = slice(first, first + read.shape[-1])
            goal = whole[..., phase, :][(slice(None), slice(None), *inner[:-1], places)]
            self.steps.append(partial(self.xp.copyto, goal, read))
        return whole

    def _rows(self, whole: Any, part: Any, rows: slice) -> tuple[Any, Any, slice]:
        """Return places and input of some rows, and where among the places the input goes."""
        window = self.shape.window
        n_rows = _input_rows(window, rows.stop - rows.start)
        first = rows.start * window.strides[0] - window.begin[0]
        begin, end = max(first, 0), max(0, min(first + n_rows, window.extent[0]))
        begin = min(begin, end)
        whole = whole[:, :, :n_rows]
        inner = slice(begin - first, end - first) if begin < end else slice(0, 0)
        for beyond in (whole[:, :, : inner.start], whole[:, :, inner.stop :]):
            if beyond.size:  # the block before may have left its rows here
                self.steps.append(partial(beyond.fill, 0))
        return whole, part[:, :, begin:end], inner

    def views(self, source: Any, rows: slice) -> list[tuple[slice, Any]]:
        """Return (images, c, *kernel, *out) of a source: (k, o) lies at stride*o + dilation*k.

        In parts: some taps of the last axis, and what they read.
        """
        window = self.shape.window
        if self.phases == 1:
            return [(slice(None), self.view(source, rows, window.kernel[-1], window.strides[-1]))]
        parts = []
        for phase in range(self.phases):
            taps = -(-(window.kernel[-1] - phase) // self.phases)
            view = self.view(source[..., phase, :], rows, taps, 1)
            parts.append((slice(phase, None, self.phases), view))
        return parts

    def view(self, source: Any, rows: slice, taps: int, step: int) -> Any:
        """Return the windows of a source, whose last axis has taps and a step of its own."""
        window = self.shape.window
        steps = (*window.strides[:-1], step)
        source = source[:, :, rows.start * steps[0] :]
        spatial = source.strides[2:]
        return self.xp.lib.stride_tricks.as_strided(
            source,
            (
                *source.shape[:2], *window.kernel[:-1], taps,
                rows.stop - rows.start, *window.out[1:],
            ),
            (
                *source.strides[:2],
                *[d * s for d, s in zip(window.dilations, spatial, strict=True)],
                *[d * s for d, s in zip(steps, spatial, strict=True)],
            ),
        )  # fmt: skip

    def multiply(self, source: Any, images: slice, groups: slice, rows: slice) -> None:
        """Lay out the columns of one block, multiply, add the bias."""
        xp, m, window = self.xp, self.shape.m, self.shape.window
        n_rows = rows.stop - rows.start
        laid = (*source.shape[:2], *window.kernel, n_rows, *window.out[1:])
        columns = self.columns[: math.prod(laid)].reshape(laid)
        channels = slice(groups.start * m, groups.stop * m)
        goal = self.out[images, channels, rows]
        positions = math.prod(goal.shape[2:])
        sizes = (goal.shape[0], groups.stop - groups.start, m, positions)
        total, product = goal, None
        if self.wide_out is not None:
            total = self.wide_out[: goal.size].reshape(goal.shape)
            product = total.reshape(sizes)
        else:
            product = _as_products(goal, sizes)
        right = columns.reshape(*sizes[:2], self.matrix.shape[2], positions)
        left = self.matrix[groups]
        if sizes[:2] == (1, 1):
            left, right, product = left[0], right[0, 0], product[0, 0]
        before = (slice(None),) * (1 + len(window.kernel))
        read = slice(0, n_rows) if self.by_rows else rows
        for taps, view in self.views(source, read):
            self.steps.append(partial(xp.copyto, columns[(*before, taps)], view))
        self.steps.append(partial(xp.matmul, left, right, out=product))
        bias = None if self.bias is None else self.bias[channels]
        self.steps += _bias_step(xp, total, bias)
        if total is not goal:
            self.steps.append(partial(xp.copyto, goal, total, casting="same_kind"))
        self.steps += self.finish(goal)


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


def _as_products(goal: Any, sizes: tuple[int, ...]) -> Any:
    """Return rows of an output (n, m, rows, ...) as (n, groups, m / groups, positions), a view."""
    image, channel, item = goal.strides[0], goal.strides[1], goal.dtype.itemsize
    strides = (image, channel * sizes[2], channel, item)
    if isinstance(goal, np.ndarray):
        return np.lib.stride_tricks.as_strided(goal, sizes, strides)
    return type(goal)(sizes, goal.dtype, goal.data, strides)


def _bind_filter(
    xp: Any, ins: Arrays, out: Any, shape: ConvShape, scratch: Arrays, finish: Finish
) -> Launch:
    x, pack_x = _packed(xp, ins[0])
    steps = filter_steps(xp, x, ins[1], out, shape, scratch)
    bias = ins[2] if len(ins) > 2 else None
    return launch_all([*pack_x, *steps, *_bias_step(xp, out, bias), *finish(out)])


def _bind_shifted(
    xp: Any, ins: Arrays, out: Any, shape: ConvShape, way: Shift, scratch: Arrays, finish: Finish
) -> Launch:
    x, pack_x = ins[0], list[Launch]()
    if not shape.window.padded:  # else it is copied in any case
        x, pack_x = _packed(xp, x)
    w, pack_w = _packed(xp, ins[1])
    work = ShiftedConv(xp, x, w, out, shape, way, scratch)
    bias = ins[2] if len(ins) > 2 else None
    for image in range(shape.n):
        for groups in _parts(shape.groups, work.groups):
            flat = work.flat_input(image, groups)
            channels = slice(groups.start * shape.m, groups.stop * shape.m)
            for rows in _parts(shape.window.out[0], work.rows):
                goal = work.add_block(flat, image, groups, rows)
                work.steps += _bias_step(xp, goal[None], None if bias is None else bias[channels])
                work.steps += finish(goal)
    return launch_all([*pack_x, *pack_w, *work.steps])


def _parts(extent: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, extent)) for first in range(0, extent, size)]


def bind_conv(
    xp: Any, ins: Arrays, out: Any, shape: ConvShape, scratch: Arrays, finish: Finish = nothing_more
) -> Launch:
    """Return the launch of a convolution; `scratch` is as `conv_scratch` says."""
    if not scratch:
        return _bind_pointwise(xp, ins, out, shape, finish)
    if is_filter(shape, out.dtype):
        return _bind_filter(xp, ins, out, shape, scratch, finish)
    way = choose(shape, out.dtype)
    if way is not None:
        return _bind_shifted(xp, ins, out, shape, way, scratch, finish)
    work = _Im2col(xp, ins, out, shape, scratch, finish)
    for images in _parts(shape.n, work.blocks.images):
        for groups in _parts(shape.groups, work.blocks.groups):
            source = None if work.by_rows else work.source(images, groups)
            for rows in _parts(shape.window.out[0], work.blocks.rows):
                part = work.source(images, groups, rows) if source is None else source
                work.multiply(part, images, groups, rows)
    return launch_all(work.steps)
