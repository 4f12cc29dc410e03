"""Launches as lists of calls: what of a launch can be written down, and lists put into memory."""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np

from asyncnet_gpu.backends.cpu.native.encode import Calls, encode
from asyncnet_gpu.backends.cpu.native.library import LaneState, Library, Run, library
from asyncnet_gpu.backends.cpu.native.operands import Array
from asyncnet_gpu.ops.base import Launch
from asyncnet_gpu.ops.strided import Launches, nothing

#: A list that takes less (by its own rough estimate) keeps Python's lock: a thread that waits for
#: the lock needs several times that to wake up, and this one would then wait for it in turn.
_SHORT_S = 10e-6


def elementary(launch: Launch) -> Iterator[Launch]:
    """Yield the calls of which a launch consists, in order."""
    if isinstance(launch, Launches):
        for call in launch.calls:
            yield from elementary(call)
    elif launch is not nothing:
        yield launch


def written(launch: Launch) -> Calls | None:
    """Return a launch written down, or None where some call of it cannot be."""
    calls = Calls()
    return calls if all(encode(call, calls) for call in elementary(launch)) else None


def native(launch: Launch) -> Launch:
    """Return a launch that does the same with as few calls from Python as possible."""
    found = library()
    if found is None:
        return launch
    parts: list[Launch] = []
    calls = Calls()
    for call in elementary(launch):
        if encode(call, calls):
            continue
        if calls.words:
            parts.append(CallList([calls], found).whole())
        parts.append(call)
        calls = Calls()
    if calls.words:
        parts.append(CallList([calls], found).whole())
    return parts[0] if len(parts) == 1 else Launches(tuple(parts)) if parts else nothing


@final
class CallList:
    """Calls at a fixed place in memory, to be carried out whole or item by item.

    Parameters
    ----------
    items
        What can be carried out by itself, in order.
    state, lane
        Address of the state of the program, and the state of the thread; None where there are no
        events.

    Attributes
    ----------
    marks
        Addresses of the beginnings of the items, of the end of the last, and 0.
    """

    def __init__(
        self, items: Sequence[Calls], functions: Library, state: int | None = None,
        lane: LaneState | None = None,
    ) -> None:  # fmt: skip
        whole = Calls()
        ends = [0]
        for item in items:
            whole.append(item)
            ends.append(len(whole.words))
        self._functions = functions
        self._shared = state, None if lane is None else ctypes.addressof(lane)
        self._lane = lane
        self._words = np.array(whole.words, np.int64)
        self._pointers = np.array(whole.pointers, np.int64)
        self._kept = whole.kept
        self._ends = [self._words.ctypes.data + 8 * end for end in ends]
        self.marks = np.array([*self._ends, 0], np.int64)
        self._functions_of = [self._function(item) for item in items]
        self._function_of_all = self._function(whole)

    def _function(self, calls: Calls) -> Run:
        if calls.waits:
            return self._functions.run_waiting
        return self._functions.run_locked if calls.seconds < _SHORT_S else self._functions.run

    def whole(self) -> Launch:
        """Return the launch that carries out everything."""
        return self._launch(self._function_of_all, self._ends[0], self._ends[-1])

    def part(self, index: int) -> Launch:
        """Return the launch that carries out one item."""
        return self._launch(self._functions_of[index], *self._ends[index : index + 2])

    def _launch(self, run: Run, first: int, end: int) -> Launch:
        launch = partial(run, first, end, *self._shared)
        launch.__dict__["owner"] = self  # the words live as long as the launch
        return launch

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self._functions_of)

    def item_at(self, progress: int) -> int:
        """Return the index of the item in which an address lies; 0 for one outside the list."""
        if not self._ends[0] <= progress < self._ends[-1]:
            return 0
        return bisect_right(self._ends, progress) - 1

    def addresses_within(self, array: Array) -> Addresses:
        """Return where the list points into an array, for `Addresses.move`."""
        base = array.ctypes.data
        values = self._words[self._pointers]
        inside = (values >= base) & (values < base + max(array.nbytes, 1))
        return Addresses(self._words, self._pointers[inside], values[inside] - base)


@final
@dataclass(frozen=True, slots=True)
class Addresses:
    """Words that point into one array, and how far behind its first byte."""

    words: Array
    places: Array
    offsets: Array

    def move(self, base: int) -> None:
        """Let them point into an array that begins at `base`."""
        self.words[self.places] = self.offsets + base
