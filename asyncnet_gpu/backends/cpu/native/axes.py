"""Axes of a call: merged where they lie in one run, sorted as the memory lies, the last the inner.

As NumPy's iterator does it (NumPy Enhancement Proposal 10), but for rows too short to be worth a
call of the inner loop each: see `staged`.
"""

from __future__ import annotations

from collections.abc import Sequence

from asyncnet_gpu.backends.cpu.native.operands import Array, is_carried

#: Extent, and stride in bytes by operand.
Axis = tuple[int, tuple[int, ...]]

#: The same numbers stand in ``call_list.c``.
MAX_AXES, _MAX_STAGED = 32, 3

#: Rows of fewer elements are staged, if there are at least as many as the second number says.
_SHORT_ROW, _FEWEST_ROWS = 40, 4


def elementwise_axes(
    operands: Sequence[Array], shape: tuple[int, ...], *, by: int
) -> list[Axis] | None:
    """Return the axes of operands that broadcast to `shape`, in the order of operand `by`.

    None where an operand does not broadcast to it.
    """
    if all([a.flags.c_contiguous and a.shape == shape for a in operands]):  # noqa: C419 - faster
        return [(operands[0].size, tuple([a.itemsize for a in operands]))]
    if not all([spreads(a.shape, shape) for a in operands]):  # noqa: C419 - faster
        return None
    return merged_axes(shape, [spread_strides(a.shape, a.strides, shape) for a in operands], by=by)


def spreads(own: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array of one shape broadcasts to another.

    >>> spreads((3, 1), (2, 3, 5)), spreads((2,), (1,)), spreads((1, 3), (3,))
    (True, False, False)
    """
    if own == shape:
        return True
    last = len(shape) - len(own)
    return last >= 0 and all(n in (1, m) for n, m in zip(own, shape[last:], strict=True))


def spread_strides(
    own: tuple[int, ...], strides: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the strides of an array seen with `shape`: 0 where it is broadcast.

    >>> spread_strides((3, 1), (4, 4), (2, 3, 5))
    (0, 4, 0)
    """
    if own == shape:
        return strides
    missing = (0,) * (len(shape) - len(own))
    return missing + tuple([0 if n == 1 else s for n, s in zip(own, strides, strict=True)])


def merged_axes(shape: Sequence[int], strides: Sequence[Sequence[int]], *, by: int) -> list[Axis]:
    """Drop axes of extent 1, sort by the strides of operand `by`, merge what lies in one run.

    >>> merged_axes((2, 3, 4), [(48, 16, 4), (16, 0, 4)], by=0)
    [(2, (48, 16)), (3, (16, 0)), (4, (4, 4))]
    >>> merged_axes((2, 3, 4), [(48, 16, 4), (0, 0, 0)], by=0)
    [(24, (4, 0))]
    """
    axes = [
        (extent, steps)
        for extent, steps in zip(shape, zip(*strides, strict=True), strict=True)
        if extent != 1
    ]
    if len(axes) < 2:
        return axes
    axes.sort(key=lambda axis: -abs(axis[1][by]))
    merged = [axes[0]]
    for extent, steps in axes[1:]:
        if merged[-1][1] == tuple([extent * step for step in steps]):
            merged[-1] = (merged[-1][0] * extent, steps)
        else:
            merged.append((extent, steps))
    return merged


def staged(operands: Sequence[Array], axes: Sequence[Axis]) -> int:
    """Return which operands to stage so that the last two axes become one, or 0 for none.

    Parameters
    ----------
    operands
        The output last.

    Returns
    -------
    The word of ``call_list.c``: by operand one byte, its element size if it is staged.
    """
    if len(axes) < 2:
        return 0
    (rows, steps), (length, strides) = axes[-2:]
    if not 1 < length < _SHORT_ROW or rows < _FEWEST_ROWS:
        return 0
    apart = [i for i, stride in enumerate(strides) if steps[i] != stride * length]
    if len(apart) > _MAX_STAGED or len(operands) - 1 in apart:
        return 0
    if not all(is_carried(operands[i].dtype) for i in apart):
        return 0
    return sum([operands[i].itemsize << 8 * i for i in apart])
