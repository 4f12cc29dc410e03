"""Calls of NumPy as words of a call list; the layout stands in ``kernels/host/call_list.c``.

A call is written down if it computes from arrays with fixed addresses into another: a ufunc, a
matrix product, a reduction, a copy. Axes that lie behind one another in all operands are merged,
the others walked in the order of the output's memory, as NumPy does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.backends.cpu.native.loops import Loop, loop_of, scalar_dtype

Array = np.ndarray[Any, Any]

#: The same numbers stand in ``call_list.c``.
_MAX_OPERANDS, _MAX_AXES, _MAX_STAGED = 8, 32, 3

#: Rows of fewer elements are staged, if there are at least as many as the second number says.
_SHORT_ROW, _FEWEST_ROWS = 40, 4

_COPIED_BYTES = (1, 2, 4, 8)
_NO_LOOP = Loop(0, 0, 0, None)

# What a call takes, roughly: only lists that are over at once are told from others by it.
_CALL_S, _BYTES_PER_S, _FLOPS_PER_S = 20e-9, 20e9, 50e9

_REDUCERS = {
    np.sum: np.add, np.prod: np.multiply, np.max: np.maximum, np.amax: np.maximum,
    np.min: np.minimum, np.amin: np.minimum,
}  # fmt: skip

#: ufuncs whose reduction may take its first element twice, which is how it begins; the others begin
#: with a number.
_IDEMPOTENT = frozenset({"maximum", "minimum", "logical_and", "logical_or"})
_IDENTITY = {"add": 0, "multiply": 1}


@dataclass(slots=True)
class Calls:
    """Calls written down.

    Attributes
    ----------
    words
        As in ``call_list.c``.
    pointers
        Index in `words` of each address of elements.
    kept
        What owns the memory, loops included.
    seconds
        Rough estimate of how long they take.
    """

    words: list[int] = field(default_factory=list)
    pointers: list[int] = field(default_factory=list)
    kept: list[object] = field(default_factory=list)
    seconds: float = 0.0

    def add(
        self, loop: Loop, operands: Sequence[Array], axes: list[_Axis], *, auxiliary: int = 0,
        core: Sequence[int] = (), core_strides: Sequence[int] = (), flops: float = 0.0,
    ) -> None:  # fmt: skip
        """Write one call down; of `axes` the last is the inner one."""
        extent, inner = axes.pop() if axes else (1, (0,) * len(operands))
        n = len(operands)
        staged = 0
        if loop.address and not core and axes:
            staged = _staged(operands, axes[-1], (extent, inner))
        self.words += (
            loop.address,
            loop.context,
            auxiliary or loop.auxiliary,
            n | len(axes) << 8 | (1 + len(core)) << 16 | (n + len(core_strides)) << 24,
            staged,
        )
        first = len(self.words)
        self.pointers += range(first, first + n)
        self.words += [_address(a) for a in operands]
        self.words += (extent, *core, *inner, *core_strides)
        self.words += [extent for extent, _ in axes]
        for _, steps in axes:
            self.words += steps
        self.kept += (loop.owner, *operands)
        places = extent * math.prod([extent for extent, _ in axes])
        moved = places * sum([a.itemsize for a in operands])
        self.seconds += _CALL_S + max(moved / _BYTES_PER_S, places * flops / _FLOPS_PER_S)

    def append(self, more: Calls) -> None:
        """Put others behind these."""
        shift = len(self.words)
        self.words += more.words
        self.pointers += [shift + i for i in more.pointers]
        self.kept += more.kept
        self.seconds += more.seconds


#: Extent, and stride by operand.
_Axis = tuple[int, tuple[int, ...]]


def encode(call: Callable[[], object], calls: Calls) -> bool:
    """Write a call down behind `calls`, or return False: it has to be called from Python."""
    if not isinstance(call, partial):
        return False
    function, args, given = call.func, call.args, call.keywords
    if isinstance(function, np.ufunc):
        return _encode_ufunc(function, args, given, calls)
    if function is np.copyto:
        if given.keys() - {"casting", "where"}:
            return False
        return _encode_copy(args[0], args[1], calls, given.get("where"))
    owner = getattr(function, "__self__", None)
    if isinstance(owner, np.ndarray) and function.__name__ == "fill":
        return _encode_copy(owner, np.asarray(args[0], owner.dtype), calls)
    if isinstance(owner, np.ufunc) and function.__name__ == "reduce":
        return _encode_reduction(owner, args, given, calls)
    if function in _REDUCERS:
        return _encode_reduction(_REDUCERS[function], args, given, calls)
    if function is np.concatenate:
        parts, axis, out = (*args, *[given[k] for k in ("axis", "out") if k in given])
        return _encode_joined(parts, axis, out, calls)
    return False


def _encode_ufunc(
    function: np.ufunc, args: tuple[Any, ...], given: dict[str, Any], calls: Calls
) -> bool:
    ins, out = list(args), given.get("out")
    if out is None and len(ins) == function.nin + 1:
        out = ins.pop()
    if given.keys() - {"out", "dtype", "casting"} or not isinstance(out, np.ndarray):
        return False
    if function.nout != 1 or len(ins) != function.nin or given.get("dtype", out.dtype) != out.dtype:
        return False
    operands = _as_arrays(function, ins, out)
    loop = operands and loop_of(function, tuple([a.dtype for a in operands]))
    if not operands or not loop or not _apart(operands):
        return False
    if not out.size:
        return True
    if function is np.matmul:
        return _encode_product(loop, operands, calls)
    if function.signature is not None:
        return False
    axes = _elementwise_axes(operands, out.shape)
    if axes is None:
        return False
    calls.add(loop, operands, axes)
    return True


def _as_arrays(function: np.ufunc, ins: list[Any], out: Array) -> list[Array] | None:
    """Return all operands as arrays, outputs last; None for what NumPy would have to convert."""
    found: list[Array] = []
    like = next((a.dtype for a in ins if isinstance(a, np.ndarray)), None)
    for value in ins:
        if isinstance(value, (np.ndarray, np.generic)):
            found.append(np.asarray(value))
        elif isinstance(value, (bool, int, float)) and like is not None and function.nin == 2:
            try:
                found.append(np.asarray(value, scalar_dtype(function, value, like)))
            except (TypeError, OverflowError):
                return None
        else:
            return None
    return [*found, out]


def _encode_product(loop: Loop, operands: list[Array], calls: Calls) -> bool:
    a, b, out = operands
    if a.ndim == 1:
        a, out = a[None], out[..., None, :] if b.ndim > 1 else out[None]
    if b.ndim == 1:
        b, out = b[:, None], out[..., None]
    rows, terms, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    batch = out.shape[:-2]
    strides = [_spread(array.shape[:-2], array.strides[:-2], batch) for array in (a, b, out)]
    axes = _merged(batch, strides, by=2)
    if len(axes) > _MAX_AXES:
        return False
    core_strides = [*a.strides[-2:], *b.strides[-2:], *out.strides[-2:]]
    calls.add(loop, (a, b, out), axes, core=(rows, terms, columns), core_strides=core_strides,
              flops=2.0 * rows * terms * columns)  # fmt: skip
    return True


def _encode_copy(target: Array, source: Any, calls: Calls, where: Any = None) -> bool:
    if not isinstance(source, np.ndarray):
        source = np.asarray(source, target.dtype)
    if source.dtype != target.dtype or target.itemsize not in _COPIED_BYTES:
        return False
    operands = [target, source]
    if where is not None:
        if not isinstance(where, np.ndarray) or where.dtype != np.bool_:
            return False
        operands.append(where)
    if target.dtype.hasobject or not _apart([*operands[1:], target]):
        return False
    if not target.size:
        return True
    axes = _elementwise_axes(operands, target.shape, by=0)
    if axes is None:
        return False
    calls.add(_NO_LOOP, operands, axes, auxiliary=target.itemsize)
    return True


def _encode_joined(parts: Sequence[Array], axis: int, out: Any, calls: Calls) -> bool:
    if not isinstance(out, np.ndarray):
        return False
    made = Calls()
    begin = 0
    for part in parts:
        place = [slice(None)] * out.ndim
        place[axis] = slice(begin, begin + part.shape[axis])
        begin += part.shape[axis]
        if not _encode_copy(out[tuple(place)], part, made):
            return False
    calls.append(made)
    return True


def _encode_reduction(
    function: np.ufunc, args: tuple[Any, ...], given: dict[str, Any], calls: Calls
) -> bool:
    (x,), out = args, given.get("out")
    if given.keys() - {"axis", "dtype", "out", "keepdims"} or not isinstance(out, np.ndarray):
        return False
    name = function.__name__
    loop = loop_of(function, (out.dtype, x.dtype, out.dtype))
    if not loop or x.dtype != out.dtype or given.get("dtype", out.dtype) != out.dtype:
        return False
    if not x.size or not _apart([x, out]) or name not in _IDEMPOTENT | _IDENTITY.keys():
        return False
    axis = given.get("axis", 0)
    listed = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    reduced = {a % x.ndim for a in listed}
    total = out if given.get("keepdims", False) else np.expand_dims(out, tuple(sorted(reduced)))
    begin = np.asarray(_IDENTITY.get(name, 0), out.dtype)
    if name in _IDEMPOTENT:
        firsts = [slice(0, 1) if a in reduced else slice(None) for a in range(x.ndim)]
        begin = x[(*firsts, ...)]  # an array even where x has no axes
    axes = _elementwise_axes([total, x, total], x.shape, by=1)
    made = Calls()
    if axes is None or not _encode_copy(total, begin, made):
        return False
    made.add(loop, (total, x, total), axes)
    calls.append(made)
    return True


# -- axes and memory ---------------------------------------------------------------------------


def _elementwise_axes(
    operands: Sequence[Array], shape: tuple[int, ...], *, by: int = -1
) -> list[_Axis] | None:
    """Return the merged axes of operands that broadcast to `shape`, or None: too many."""
    if len(operands) > _MAX_OPERANDS:
        return None
    if all(a.shape == shape and a.flags.c_contiguous for a in operands):
        return [(operands[0].size, tuple([a.itemsize for a in operands]))]
    strides = [_spread(a.shape, a.strides, shape) for a in operands]
    axes = _merged(shape, strides, by=by % len(operands))
    return axes if len(axes) <= _MAX_AXES else None


def _spread(
    own: tuple[int, ...], strides: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the strides of an array seen with `shape`: 0 where it is broadcast."""
    missing = (0,) * (len(shape) - len(own))
    return missing + tuple([0 if n == 1 else s for n, s in zip(own, strides, strict=True)])


def _merged(shape: Sequence[int], strides: Sequence[Sequence[int]], *, by: int) -> list[_Axis]:
    """Drop axes of extent 1, sort by the strides of operand `by`, merge what lies in one run."""
    axes = [
        (extent, steps)
        for extent, steps in zip(shape, zip(*strides, strict=True), strict=True)
        if extent != 1
    ]
    axes.sort(key=lambda axis: -abs(axis[1][by]))
    merged: list[_Axis] = []
    for extent, steps in axes:
        if merged and all(o == i * extent for o, i in zip(merged[-1][1], steps, strict=True)):
            merged[-1] = (merged[-1][0] * extent, steps)
        else:
            merged.append((extent, steps))
    return merged


def _staged(operands: Sequence[Array], outer: _Axis, inner: _Axis) -> int:
    """Return which operands to stage so that two axes become one, as a word; 0 for none."""
    (rows, steps), (length, strides) = outer, inner
    if not 1 < length < _SHORT_ROW or rows < _FEWEST_ROWS:
        return 0
    apart = [i for i, stride in enumerate(strides) if steps[i] != stride * length]
    last = len(operands) - 1
    if len(apart) > _MAX_STAGED or last in apart:
        return 0
    return sum([operands[i].itemsize << 8 * i for i in apart])


def _address(array: Array) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def _bounds(array: Array) -> tuple[int, int]:
    """Return the addresses of the first byte that an array touches and of the one behind the last.

    An array without elements touches none.
    """
    low = high = _address(array)
    if not array.size:
        return low, low
    if array.flags.c_contiguous:
        return low, low + array.nbytes
    for extent, stride in zip(array.shape, array.strides, strict=True):
        reach = (extent - 1) * stride
        low, high = low + min(reach, 0), high + max(reach, 0)
    return low, high + array.itemsize


def _apart(operands: Sequence[Array]) -> bool:
    """Whether the last operand may be written while the others are read, all in native order.

    NumPy copies operands that overlap in another way than element upon element; a list does not.
    """
    out = operands[-1]
    low, high = _bounds(out)
    for array in operands:
        if not (array.flags.aligned and array.dtype.isnative):
            return False
        if array is out:
            continue
        begin, end = _bounds(array)
        same = begin == low and array.shape == out.shape and array.strides == out.strides
        if begin < high and low < end and not same and _share(array, out):
            return False
    return True


def _share(a: Array, b: Array) -> bool:
    """Whether two arrays have an element's byte in common; True where that is hard to tell."""
    try:
        return bool(np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
