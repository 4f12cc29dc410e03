"""Calls of NumPy as words of a call list; the layout stands in ``kernels/host/call_list.c``.

A call is written down if it computes from arrays with fixed addresses into another: a ufunc, a
matrix product, a reduction, a copy. Axes that lie behind one another in all operands are merged,
the others walked in the order of the output's memory, as NumPy does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.backends.cpu.native.axes import (
    MAX_AXES,
    Axis,
    elementwise_axes,
    merged_axes,
    spread_strides,
    spreads,
    staged,
)
from asyncnet_gpu.backends.cpu.native.loops import Loop, loop_of, scalar_dtype
from asyncnet_gpu.backends.cpu.native.operands import Array, addresses, constant, is_carried

#: The same numbers stand in ``call_list.c``.
_MAX_OPERANDS = 8
_RECORD, _WAIT = 1, 2

_NO_LOOP = Loop(0, 0, 0, None)

# What a call takes, roughly: only lists that are over at once are told from others by it.
_CALL_S, _BYTES_PER_S, _FLOPS_PER_S = 20e-9, 20e9, 50e9

_REDUCERS = (
    (np.sum, np.add), (np.prod, np.multiply), (np.max, np.maximum), (np.amax, np.maximum),
    (np.min, np.minimum), (np.amin, np.minimum),
)  # fmt: skip

#: ufuncs whose reduction may take its first element twice, which is how it begins; the others begin
#: with a number.
_IDEMPOTENT = frozenset({"maximum", "minimum", "logical_and", "logical_or"})
_IDENTITY = {"add": 0, "multiply": 1}
_REDUCED = _IDEMPOTENT | _IDENTITY.keys()


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
        What owns the memory of the operands.
    seconds
        Rough estimate of how long they take.
    waits
        Whether one of them waits for an event.
    """

    words: list[int] = field(default_factory=list)
    pointers: list[int] = field(default_factory=list)
    kept: list[object] = field(default_factory=list)
    seconds: float = 0.0
    waits: bool = False

    def add(
        self, loop: Loop, operands: Sequence[Array], at: Sequence[int], axes: Sequence[Axis], *,
        auxiliary: int = 0, core: Sequence[int] = (), core_strides: Sequence[int] = (),
        flops: float = 0.0,
    ) -> bool:  # fmt: skip
        """Write one call down; of `axes` the last is the inner one. False if it is too large."""
        n, n_outer = len(operands), max(0, len(axes) - 1)
        if n > _MAX_OPERANDS or n_outer > MAX_AXES:
            return False
        extent, inner = axes[-1] if axes else (1, (0,) * n)
        first = len(self.words) + 5
        self.pointers += range(first, first + n)
        self.words += (
            loop.address,
            loop.context,
            auxiliary or loop.auxiliary,
            n | n_outer << 8 | (1 + len(core)) << 16 | (n + len(core_strides)) << 24,
            staged(operands, axes) if loop.address and not core else 0,
            *at,
            extent,
            *core,
            *inner,
            *core_strides,
        )
        places = extent
        for outer, _ in axes[:-1]:
            self.words.append(outer)
            places *= outer
        for _, steps in axes[:-1]:
            self.words += steps
        self.kept += operands
        moved = places * sum([a.itemsize for a in operands])
        self.seconds += _CALL_S + max(moved / _BYTES_PER_S, places * flops / _FLOPS_PER_S)
        return True

    def record(self, event: int) -> None:
        """Record the event at an address."""
        self.words += (0, 0, _RECORD, 1 << 16, 0, event)

    def wait(self, event: int) -> None:
        """Wait for the event at an address."""
        self.words += (0, 0, _WAIT, 1 << 16, 0, event)
        self.waits = True

    def append(self, more: Calls) -> None:
        """Put others behind these."""
        shift = len(self.words)
        self.words += more.words
        self.pointers += [shift + i for i in more.pointers]
        self.kept += more.kept
        self.seconds += more.seconds
        self.waits |= more.waits


def encode(call: Callable[[], object], calls: Calls) -> bool:
    """Write a call down behind `calls`, or return False: it has to be called from Python."""
    if not isinstance(call, partial):
        return False
    function, args, given = call.func, call.args, call.keywords
    if isinstance(function, np.ufunc):
        return _encode_ufunc(function, args, given, calls)
    if function is np.copyto:
        if len(args) != 2 or given.keys() - {"casting", "where"}:
            return False
        return _encode_copy(args[0], args[1], calls, given.get("where"))
    if function is np.concatenate:
        return _encode_joined(args, given, calls)
    owner = getattr(function, "__self__", None)
    if isinstance(owner, np.ndarray) and function.__name__ == "fill":
        return len(args) == 1 and not given and _encode_fill(owner, args[0], calls)
    if isinstance(owner, np.ufunc) and function.__name__ == "reduce":
        return _encode_reduction(owner, args, {"axis": 0, **given}, calls)
    for reducer, reduced in _REDUCERS:
        if function is reducer:
            return _encode_reduction(reduced, args, {"axis": None, **given}, calls)
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
    if not operands or not loop:
        return False
    if function is np.matmul:
        return _encode_product(loop, operands, calls)
    found = addresses(out, *operands[:-1])
    if not found or function.signature is not None:
        return False
    axes = elementwise_axes(operands, out.shape, by=-1)
    if axes is None:
        return False
    return not out.size or calls.add(loop, operands, [*found[1:], found[0]], axes)


def _as_arrays(function: np.ufunc, ins: list[Any], out: Array) -> list[Array] | None:
    """Return all operands as arrays, outputs last; None for what NumPy would have to convert."""
    found: list[Array] = []
    like = next((a.dtype for a in ins if isinstance(a, np.ndarray)), None)
    for value in ins:
        if isinstance(value, (np.ndarray, np.generic)):
            found.append(np.asarray(value))
        elif isinstance(value, (bool, int, float)) and like is not None and function.nin == 2:
            try:
                with np.errstate(all="ignore"):
                    found.append(np.asarray(value, scalar_dtype(function, value, like)))
            except (TypeError, OverflowError):
                return None
        else:
            return None
    return [*found, out]


def _encode_product(loop: Loop, operands: list[Array], calls: Calls) -> bool:
    a, b, out = operands
    if not a.ndim or not b.ndim or out.ndim < max(a.ndim, b.ndim) - (a.ndim == 1) - (b.ndim == 1):
        return False
    if a.ndim == 1:
        a, out = a[None], out[..., None, :] if b.ndim > 1 else out[..., None]
    if b.ndim == 1:
        b, out = b[:, None], out[..., None]
    (rows, terms), columns, batch = a.shape[-2:], b.shape[-1], out.shape[:-2]
    if b.shape[-2] != terms or out.shape[-2:] != (rows, columns):
        return False
    if not spreads(a.shape[:-2], batch) or not spreads(b.shape[:-2], batch):
        return False
    found = addresses(out, a, b, in_place=False)
    if not found or not out.size:
        return bool(found)
    strides = [spread_strides(array.shape[:-2], array.strides[:-2], batch) for array in (a, b, out)]
    return calls.add(
        loop, (a, b, out), [*found[1:], found[0]], merged_axes(batch, strides, by=2),
        core=(rows, terms, columns),
        core_strides=(*a.strides[-2:], *b.strides[-2:], *out.strides[-2:]),
        flops=2.0 * rows * terms * columns,
    )  # fmt: skip


def _encode_fill(target: Array, value: Any, calls: Calls) -> bool:
    if not isinstance(value, np.ndarray):
        value = constant(value, target.dtype, fill=True)
    return value is not None and value.ndim == 0 and _encode_copy(target, value, calls)


def _encode_copy(target: Any, source: Any, calls: Calls, where: Any = None) -> bool:
    if not isinstance(target, np.ndarray):
        return False
    if not isinstance(source, np.ndarray):
        source = constant(source, target.dtype)
    if source is None or source.dtype != target.dtype or not is_carried(target.dtype):
        return False
    operands = [target, source]
    if where is not None:
        if not isinstance(where, np.ndarray) or where.dtype != np.bool_:
            return False
        operands.append(where)
    at = addresses(*operands)
    axes = elementwise_axes(operands, target.shape, by=0) if at else None
    if not at or axes is None:
        return False
    if not target.size or at[0] == at[1]:  # onto itself
        return True
    return calls.add(_NO_LOOP, operands, at, axes, auxiliary=target.itemsize)


def _encode_joined(args: tuple[Any, ...], given: dict[str, Any], calls: Calls) -> bool:
    if given.keys() - {"axis", "out"} or not 0 < len(args) <= 3:
        return False
    parts = args[0]
    axis = given.get("axis", args[1] if len(args) > 1 else 0)
    out = given.get("out", args[2] if len(args) > 2 else None)
    if not isinstance(out, np.ndarray) or not isinstance(parts, (list, tuple)) or not parts:
        return False
    if not isinstance(axis, int) or not -out.ndim <= axis < out.ndim:
        return False
    made = Calls()
    begin = 0
    for part in parts:
        if not isinstance(part, np.ndarray) or part.ndim != out.ndim:
            return False
        end = begin + part.shape[axis]
        place = [slice(None)] * out.ndim
        place[axis] = slice(begin, end)
        piece = out[tuple(place)]
        if piece.shape != part.shape or not _encode_copy(piece, part, made):
            return False
        begin = end
    if begin != out.shape[axis]:
        return False
    calls.append(made)
    return True


def _encode_reduction(
    function: np.ufunc, args: tuple[Any, ...], given: dict[str, Any], calls: Calls
) -> bool:
    out = given.get("out")
    if given.keys() - {"axis", "dtype", "out", "keepdims"} or not isinstance(out, np.ndarray):
        return False
    if len(args) != 1 or not isinstance(args[0], np.ndarray) or not args[0].size:
        return False
    x, name = args[0], function.__name__
    if x.dtype != out.dtype or given.get("dtype", out.dtype) != out.dtype:
        return False
    loop = loop_of(function, (out.dtype, x.dtype, out.dtype))
    reduced = _reduced_axes(given["axis"], x.ndim)
    if not loop or reduced is None or name not in _REDUCED:
        return False
    total = out
    if not given.get("keepdims", False):
        if out.ndim + len(reduced) != x.ndim:
            return False
        places = [None if a in reduced else slice(None) for a in range(x.ndim)]
        total = out[(*places, ...)]  # an array even where it has no axes
    found = addresses(out, x, in_place=False)
    if not found or total.shape != tuple([1 if a in reduced else n for a, n in enumerate(x.shape)]):
        return False
    if name in _IDEMPOTENT:
        firsts = [slice(0, 1) if a in reduced else slice(None) for a in range(x.ndim)]
        begin = x[(*firsts, ...)]
    else:
        begin = np.asarray(_IDENTITY[name], out.dtype)
    operands, at = (total, x, total), [found[0], found[1], found[0]]
    axes = elementwise_axes(operands, x.shape, by=1)
    made = Calls()
    if axes is None or not _encode_copy(total, begin, made):
        return False
    if not made.add(loop, operands, at, axes):
        return False
    calls.append(made)
    return True


def _reduced_axes(axis: Any, ndim: int) -> set[int] | None:
    """Return the axes as numbers from 0; None where they are not what NumPy takes."""
    if axis is None:
        return set(range(ndim))
    listed = axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(a, int) and -ndim <= a < ndim for a in listed):
        return None
    reduced = {a % ndim for a in listed}
    return reduced if len(reduced) == len(listed) else None
