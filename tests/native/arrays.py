"""Arrays of every layout, made again and again alike, and a call beside its call list."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from asyncnet_gpu.backends.cpu.native.calls import native, written

Array = np.ndarray[Any, Any]

#: A call, and all memory that it reads or writes.
Call = tuple[Callable[[], object], Sequence[Array]]

#: How many times as many random examples as usual.
MORE = int(os.environ.get("ASYNCNET_CALL_EXAMPLES", "1"))

FLOATS = ("f4", "f8", "f2")
INTEGERS = ("i4", "i8", "i1", "u1", "u2", "i2", "u4", "u8")


@dataclass(frozen=True)
class Layout:
    """A view into memory of its own.

    Attributes
    ----------
    order
        The axes as they lie in memory, outermost first.
    steps
        By axis: of how many elements every how-manieth is taken; 0 repeats one, negative numbers
        turn the axis round.
    odd
        Lies at an odd address.
    """

    shape: tuple[int, ...]
    dtype: str
    order: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    odd: bool = False
    seed: int = 0
    low: int = -9

    def make(self) -> tuple[Array, Array]:
        """Return the memory as one axis, and the view."""
        steps = self.steps or (1,) * len(self.shape)
        order = self.order or tuple(range(len(self.shape)))
        extents = [n * abs(s) if s else 1 for n, s in zip(self.shape, steps, strict=True)]
        size = int(np.prod(extents)) + 2  # one more on either side
        values = numbers(np.random.default_rng(self.seed), size, np.dtype(self.dtype), self.low)
        room = np.zeros(values.nbytes + 1, np.uint8)
        memory = room[1:] if self.odd else room[:-1]
        memory = memory.view(values.dtype)
        memory[:] = values
        whole = memory[1:-1].reshape([extents[a] for a in order]).transpose(np.argsort(order))
        place = [slice(None, None, s) if s > 0 else slice(None, None, s or None) for s in steps]
        view = whole[(*place, ...)]
        return memory, view if 0 not in steps else np.broadcast_to(view, self.shape)

    def at(self, seed: int) -> Layout:
        """Return the same with other numbers."""
        return replace(self, seed=seed)


def numbers(rng: np.random.Generator, size: int, dtype: np.dtype[Any], low: int = -9) -> Array:
    """Return small integers and, for floats, halves, zeros of both signs, infinities and NaN."""
    if dtype.kind == "b":
        return rng.random(size) < 0.5
    if dtype.kind == "u":
        low = max(low, 0)
    drawn = rng.integers(low, 10, size).astype(dtype)
    if dtype.kind == "f":
        drawn = (drawn + rng.choice([0, 0.5, 0.3125], size)).astype(dtype)
        odd = rng.random(size) < 0.1
        special = [0.0, -0.0, np.inf, np.nan] if low >= 0 else [0.0, -0.0, np.inf, -np.inf, np.nan]
        drawn[odd] = rng.choice(np.array(special, dtype), int(odd.sum()))
    return drawn


@st.composite
def shapes(draw: st.DrawFn, most_axes: int = 5, largest: int = 6, empty: bool = True) -> Any:
    """Draw extents; long axes are rare, or examples get large."""
    n = draw(st.integers(0, most_axes))
    extents = st.integers(0 if empty and draw(st.integers(0, 9)) == 0 else 1, largest)
    return tuple(draw(extents) for _ in range(n))


@st.composite
def layouts(
    draw: st.DrawFn, shape: tuple[int, ...], dtype: str, *, written: bool = False,
    spread: bool = True, plain: bool = False, low: int = -9,
) -> Layout:  # fmt: skip
    """Draw a layout of an array that broadcasts to a shape; if `written`, it repeats none."""
    seed = draw(st.integers(0, 1 << 20))
    if spread and not written:
        shape = shape[draw(st.integers(0, len(shape))) :] if draw(st.booleans()) else shape
        if draw(st.booleans()):
            shape = tuple(n if draw(st.booleans()) else 1 for n in shape)
    if plain or draw(st.booleans()):
        return Layout(shape, dtype, seed=seed, low=low)
    order = tuple(draw(st.permutations(range(len(shape)))))
    # A step of 0 for no element at all would need an element.
    possible = [1, 1, -1, 2, -2, 3] + ([] if written or 0 in shape else [0])
    steps = tuple(draw(st.sampled_from(possible)) for _ in shape)
    return Layout(shape, dtype, order, steps, seed=seed, low=low)


def examples(n: int) -> settings:
    """Return the settings of a test of random calls."""
    return settings(max_examples=n * MORE, deadline=None)


def alike(a: Array, b: Array) -> bool:
    """Whether two arrays are equal bit by bit, but for what a NaN carries."""
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    nan = np.isnan(a)
    bits = f"u{a.itemsize}"
    return bool(
        np.array_equal(nan, np.isnan(b)) and np.array_equal(a[~nan].view(bits), b[~nan].view(bits))
    )


def close(a: Array, b: Array) -> bool:
    """Whether two results are equal but for their last bits."""
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    few = 4 * float(np.finfo(a.dtype).eps)
    return np.allclose(a, b, rtol=few, atol=float(np.finfo(a.dtype).tiny), equal_nan=True)


def nearly(a: Array, b: Array) -> bool:
    """Whether sums or products of a few small numbers are equal but for the order."""
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    few = 64 * float(np.finfo(a.dtype).eps)
    return np.allclose(a, b, rtol=few, atol=few * 100, equal_nan=True)


#: Before 2.3, NumPy takes the terms of a sum in portions of its buffers.
as_summed = alike if np.lib.NumpyVersion(np.__version__) >= "2.3.0" else nearly


def agrees(
    make: Callable[[], Call], same: Callable[[Array, Array], bool] = alike, runs: int = 2
) -> bool:
    """Compare a call with its list, and again after all memory has changed.

    Returns
    -------
    Whether it could be written down. What could but does something else is an AssertionError.
    """
    plain, memory = make()
    call, own_memory = make()
    if written(call) is None:
        return False
    launch = native(call)
    assert launch is not call, "there is no library"
    with np.errstate(all="ignore"):
        for _ in range(runs):
            plain()  # what raises must have been refused
            launch()
            for wanted, got in zip(memory, own_memory, strict=True):
                assert same(got, wanted), f"{got}\nwhere NumPy has\n{wanted}"
            for array in (*memory, *own_memory):
                array[:] = array[::-1].copy()
    return True
