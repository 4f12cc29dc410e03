"""Arrays as operands of a call list: where they lie, and that none is overwritten unread."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Strided arrays that overlap in their extents are told apart by at most so much work.
_MOST_WORK = 10_000


def is_carried(dtype: np.dtype[Any]) -> bool:
    """Whether ``call_list.c`` copies elements of a dtype: as integers of 1, 2, 4 or 8 bytes."""
    return dtype.itemsize == dtype.alignment <= 8 and not dtype.hasobject


def constant(value: object, dtype: np.dtype[Any], *, fill: bool = False) -> Array | None:
    """Return a number as `np.copyto`, or the method ``fill``, takes it; None where it would not.

    What is not a number may change from run to run: None.
    """
    if not isinstance(value, (bool, int, float, np.generic)):
        return None
    made = np.empty((), dtype)
    try:
        with np.errstate(all="ignore"):
            if fill:
                made.fill(value)
            else:
                np.copyto(made, value)
    except (TypeError, ValueError, OverflowError):
        return None
    return made


def addresses(written: Array, *read: Array, in_place: bool = True) -> list[int] | None:
    """Return the addresses of the first elements, in this order.

    None where NumPy would do something first that a list does not: raise because the output is
    read-only, convert elements that are not aligned or not in native order, or copy what overlaps
    the output in another way than element upon element (`in_place` false: in any way).
    """
    flags = written.flags
    if not (flags.aligned and flags.writeable and written.dtype.isnative):
        return None
    at = _address(written)
    low, high = _bounds(written, at)
    found = [at]
    for array in read:
        if in_place and array is written:
            found.append(at)
            continue
        if not (array.flags.aligned and array.dtype.isnative):
            return None
        own = _address(array)
        found.append(own)
        begin, end = _bounds(array, own)
        if end <= low or high <= begin or (in_place and own == at and _alike(array, written)):
            continue
        if _share(array, written):
            return None
    return found


def _alike(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.strides == b.strides and a.itemsize == b.itemsize


def _address(array: Array) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def _bounds(array: Array, address: int) -> tuple[int, int]:
    """Return the address of the first byte that an array touches and of the one behind the last."""
    if array.flags.c_contiguous:
        return address, address + array.nbytes
    low = high = address
    if not array.size:
        return low, low
    for extent, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            low += (extent - 1) * stride
        else:
            high += (extent - 1) * stride
    return low, high + array.itemsize


def _share(a: Array, b: Array) -> bool:
    """Whether two arrays have a byte in common; True where that is hard to tell."""
    try:
        return bool(np.shares_memory(a, b, max_work=_MOST_WORK))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
