"""Convolution with steps of 1 as one matrix product and a sum of shifted rows.

Where every step is 1, moving a window by a tap moves it by a fixed number of places in the input
laid out flat, rows of padding included. So the product of a tap's weights with the whole flat input
gives that tap's share of every output, only shifted, and the shares are added up as long contiguous
rows. Some taps may be taken into the columns of the product instead (im2col): a copy of the input
each, but fewer shares. Which way is cheaper depends on the channels in and out; `choose` estimates.

Source: Anderson, Vasudevan, Keane and Gregg, "Low-memory GEMM-based convolution algorithms for
deep neural networks", 2017, section 3 (kn2row).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Launch, Specs
from asyncnet_gpu.ops.conv_shape import ConvShape
from asyncnet_gpu.specs import TensorSpec

#: Columns and products of one block, together.
_BLOCK_BYTES = 1 << 20

# Nanoseconds, measured on one core with AVX-512; only their proportions matter.
_COPY_NS, _WINDOW_COPY_NS, _ADD_NS, _RUN_NS, _CALL_NS = 0.10, 0.13, 0.125, 12.0, 1000.0
_WINDOW_RUN_NS = 6.0
_PEAK_FLOPS_PER_NS, _VECTOR_FLOPS_PER_NS = 160.0, 20.0

#: By how much shifting must be estimated to be faster: it moves more memory than the estimate
#: knows when other cores use the cache.
_MARGIN = 1.25

#: A product with fewer terms is an outer product, and slow.
_FEWEST_TERMS = 8


@dataclass(frozen=True, slots=True)
class Shift:
    """Which taps are columns and which are shifts: offsets in the flat input, in elements.

    Attributes
    ----------
    columns
        Axes of the taps that are columns, as (taps, elements from tap to tap).
    shifts
        Offsets of the others: every tap is the sum of a column and a shift.
    taps
        Extents of the kernel as (taps that are columns, taps that are shifts, taps that are columns
        again): the last axis of the kernel may be in part the one and in part the other.
    strides
        Of the spatial axes in the flat input.
    positions
        Elements of the flat input of one channel.
    """

    columns: tuple[tuple[int, int], ...]
    shifts: tuple[int, ...]
    taps: tuple[int, int, int]
    strides: tuple[int, ...]
    positions: int

    @property
    def n_columns(self) -> int:
        """Number of columns of a channel."""
        return math.prod([taps for taps, _ in self.columns])

    def run(self, shape: ConvShape, rows: int) -> int:
        """Elements from the first output of a block of rows to its last."""
        inner = sum(
            (o - 1) * s for o, s in zip(shape.window.out[1:], self.strides[1:], strict=True)
        )
        return (rows - 1) * self.strides[0] + inner + 1

    def reach(self, shape: ConvShape, rows: int) -> int:
        """Elements of each column: what any shift reads."""
        return self.run(shape, rows) + max(self.shifts)


def _offsets(axes: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return the offset of each tap of some axes, given as (taps, elements from tap to tap)."""
    steps = [[tap * step for tap in range(taps)] for taps, step in axes]
    return tuple([sum(combination) for combination in itertools.product(*steps)])


def _ways(shape: ConvShape) -> list[Shift]:
    window = shape.window
    extents = window.extent
    if window.padded:
        extents = tuple(
            [b + e + p for b, e, p in zip(window.begin, window.extent, window.end, strict=True)]
        )
    strides = tuple([math.prod(extents[axis + 1 :]) for axis in range(len(extents))])
    taps = [(k, d * s) for k, d, s in zip(window.kernel, window.dilations, strides, strict=True)]
    positions = math.prod(extents)
    ways = []
    if shape.c >= _FEWEST_TERMS:
        ways.append(Shift((), _offsets(taps), (1, shape.taps, 1), strides, positions))
    *lead, (last, step) = taps
    leading = shape.taps // last
    for width in range(1 if leading > 1 else 2, last):
        if last % width == 0:
            columns = (*lead, (width, step))
            shifts = _offsets([(last // width, width * step)])
            kinds = (leading, last // width, width)
            ways.append(Shift(columns, shifts, kinds, strides, positions))
    return ways


# -- which way ---------------------------------------------------------------------------------


def _flops_per_ns(rows: int, terms: int) -> float:
    if rows == 1:
        return _VECTOR_FLOPS_PER_NS
    return _PEAK_FLOPS_PER_NS * rows / (rows + 14) * terms / (terms + 6)


def _windows_ns(shape: ConvShape) -> float:
    """Time of a group by im2col."""
    terms = shape.c * shape.taps
    width = shape.window.out[-1]
    copied = terms * (_WINDOW_COPY_NS + _WINDOW_RUN_NS / width)
    return shape.positions * (copied + 2 * shape.m * terms / _flops_per_ns(shape.m, terms))


def _shift_ns(shape: ConvShape, way: Shift, rows: int) -> float:
    """Time of a group by `way`, some rows of the output at a time."""
    run, reach = way.run(shape, rows), way.reach(shape, rows)
    n_columns, n_shifts = way.n_columns, len(way.shifts)
    copied = shape.c * n_columns if n_columns > 1 else 0
    flops = 2 * shape.m * shape.c * shape.taps * reach
    block = (
        copied * (_COPY_NS * reach + _RUN_NS)
        + flops / _flops_per_ns(shape.m * n_shifts, shape.c * n_columns)
        + shape.m * n_shifts * (_ADD_NS * run + _RUN_NS)
        + _CALL_NS * (n_columns + n_shifts) / _groups(shape, way, rows, 4)
    )
    return block * shape.window.out[0] / rows


def _rows(shape: ConvShape, way: Shift, item: int) -> int:
    """Rows of the output in a block: as many as fit the cache."""
    taken = way.n_columns * shape.c if way.n_columns > 1 else 0
    wide = (taken + len(way.shifts) * shape.m) * item
    return max(1, min(shape.window.out[0], _BLOCK_BYTES // (wide * way.strides[0])))


def _groups(shape: ConvShape, way: Shift, rows: int, item: int) -> int:
    taken = way.n_columns * shape.c if way.n_columns > 1 else 0
    wide = (taken + len(way.shifts) * shape.m) * item * way.reach(shape, rows)
    return max(1, min(shape.groups, _BLOCK_BYTES // wide))


def choose(shape: ConvShape, dtype: np.dtype[Any]) -> Shift | None:
    """Return how to shift, or None where steps are larger than 1 or im2col is faster."""
    window = shape.window
    if max(window.strides) > 1 or shape.taps == 1 or dtype.itemsize < 4:
        return None
    best, best_ns = None, _windows_ns(shape) / _MARGIN
    for way in _ways(shape):
        ns = _shift_ns(shape, way, _rows(shape, way, dtype.itemsize))
        if ns < best_ns:
            best, best_ns = way, ns
    return best


# -- carried out -------------------------------------------------------------------------------


def shift_scratch(shape: ConvShape, way: Shift, dtype: np.dtype[Any]) -> Specs:
    """Temporaries: weights by shift, the flat input with its padding, columns, products."""
    rows = _rows(shape, way, dtype.itemsize)
    groups = _groups(shape, way, rows, dtype.itemsize)
    reach = way.reach(shape, rows)
    n_columns, n_shifts = way.n_columns, len(way.shifts)
    flat = groups * shape.c * way.positions if shape.window.padded else 0
    columns = groups * n_columns * shape.c * reach if n_columns > 1 else 0
    sizes = (
        shape.groups * n_shifts * shape.m * n_columns * shape.c,
        flat,
        columns,
        groups * n_shifts * shape.m * reach,
    )
    return tuple([TensorSpec((size,), dtype) for size in sizes])


class ShiftedConv:
    """State of one binding: buffers, and the steps made so far."""

    def __init__(
        self, xp: Any, x: Any, w: Any, out: Any, shape: ConvShape, way: Shift,
        scratch: Sequence[Any],
    ) -> None:  # fmt: skip
        self.xp, self.x, self.out, self.shape, self.way = xp, x, out, shape, way
        weights, self.flat, self.columns, self.products = scratch
        item = out.dtype.itemsize
        self.rows = _rows(shape, way, item)
        self.groups = _groups(shape, way, self.rows, item)
        self.steps: list[Launch] = []
        self.weights = self._lay_out(w, weights)

    def _lay_out(self, w: Any, buffer: Any) -> Any:
        """Return weights as (groups, shift * m, column * c), laid out in every launch."""
        shape, way = self.shape, self.way
        n_columns, n_shifts = way.n_columns, len(way.shifts)
        first, shifts, second = way.taps
        goal = buffer.reshape(shape.groups, n_shifts, shape.m, first, second, shape.c)
        source = w.reshape(shape.groups, shape.m, shape.c, first, shifts, second)
        source = source.transpose(0, 4, 1, 3, 5, 2)
        self.steps.append(partial(self.xp.copyto, goal, source))
        return goal.reshape(shape.groups, n_shifts * shape.m, n_columns * shape.c)

    def flat_input(self, image: int, groups: slice) -> Any:
        """Return (groups, c, positions) of an image, padding included."""
        shape, window = self.shape, self.shape.window
        channels = slice(groups.start * shape.c, groups.stop * shape.c)
        n_groups = groups.stop - groups.start
        part = self.x[image, channels]
        if not window.padded:
            return part.reshape(n_groups, shape.c, self.way.positions)
        size = part.shape[0] * self.way.positions
        whole = self.flat[:size].reshape(
            part.shape[0],
            *[b + e + p for b, e, p in zip(window.begin, window.extent, window.end, strict=True)],
        )
        inner: list[slice] = []
        for begin, extent in zip(window.begin, window.extent, strict=True):
            # The scratch is shared: its border is zeroed in every launch.
            for border in (slice(0, begin), slice(begin + extent, None)):
                edge = whole[(slice(None), *inner, border)]
                if edge.size:
                    self.steps.append(partial(edge.fill, 0))
            inner.append(slice(begin, begin + extent))
        self.steps.append(partial(self.xp.copyto, whole[(slice(None), *inner)], part))
        return whole.reshape(n_groups, shape.c, self.way.positions)

    def _shares(self, flat: Any, groups: slice, first: int, n_rows: int) -> Any:
        """Return (groups, shifts, m, reach): what each shift adds to every place."""
        shape, way, xp = self.shape, self.way, self.xp
        n_groups, reach = flat.shape[0], way.reach(shape, n_rows)
        start = first * way.strides[0]
        right = flat[:, :, start : start + reach]
        if way.n_columns > 1:
            group, channel, item = flat.strides
            extents = [taps for taps, _ in way.columns]
            source = xp.lib.stride_tricks.as_strided(
                flat[:, :, start:],
                (n_groups, *extents, shape.c, reach),
                (group, *[step * item for _, step in way.columns], channel, item),
            )
            columns = self.columns[: source.size].reshape(source.shape)
            self.steps.append(partial(xp.copyto, columns, source))
            right = columns.reshape(n_groups, -1, reach)
        size = n_groups * len(way.shifts) * shape.m * reach
        products = self.products[:size].reshape(n_groups, len(way.shifts) * shape.m, reach)
        self.steps.append(partial(xp.matmul, self.weights[groups], right, out=products))
        return products.reshape(n_groups, len(way.shifts), shape.m, reach)

    def _places(self, shares: Any, n_rows: int, offset: int) -> Any:
        """Return the share of a shift as (groups, m, *out): rows without what lies between."""
        shape, item = self.shape, shares.dtype.itemsize
        return self.xp.lib.stride_tricks.as_strided(
            shares[:, :, offset:],
            (*shares.shape[:2], n_rows, *shape.window.out[1:]),
            (*shares.strides[:2], *[s * item for s in self.way.strides]),
        )

    def add_block(self, flat: Any, image: int, groups: slice, rows: slice) -> Any:
        """Compute some rows of some groups; return where they are in the output."""
        shape, way, xp = self.shape, self.way, self.xp
        n_rows = rows.stop - rows.start
        shares = self._shares(flat, groups, rows.start, n_rows)
        channels = slice(groups.start * shape.m, groups.stop * shape.m)
        goal = self.out[image, channels, rows]
        run = way.run(shape, n_rows)
        total = shares[:, 0, :, :run]  # the first shift is 0
        for i, offset in enumerate(way.shifts[1:-1], 1):
            share = shares[:, i, :, offset : offset + run]
            self.steps.append(partial(xp.add, total, share, out=total))
        last = self._places(shares[:, -1], n_rows, way.shifts[-1])
        first = self._places(shares[:, 0], n_rows, 0)
        parts = self.xp.lib.stride_tricks.as_strided(
            goal,
            first.shape,
            (shape.m * goal.strides[0], *goal.strides),
        )
        self.steps.append(partial(xp.add, first, last, out=parts))
        return goal
