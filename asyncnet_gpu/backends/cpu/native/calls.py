"""Launches as lists of calls: what of a launch can be written down, and lists put into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np

from asyncnet_gpu.backends.cpu.native.encode import Calls, encode
from asyncnet_gpu.backends.cpu.native.library import Library, library
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
            parts.append(CallList(calls, found).part(0, len(calls.words), calls.seconds))
        parts.append(call)
        calls = Calls()
    if calls.words:
        parts.append(CallList(calls, found).part(0, len(calls.words), calls.seconds))
    return parts[0] if len(parts) == 1 else Launches(tuple(parts)) if parts else nothing


@final
class CallList:
    """Calls at a fixed place in memory, to be carried out whole or in part."""

    def __init__(self, calls: Calls, functions: Library) -> None:
        self._words = np.array(calls.words, np.int64)
        self._pointers = np.array(calls.pointers, np.int64)
        self._kept = calls.kept
        self._functions = functions

    def part(self, first: int, end: int, seconds: float) -> Launch:
        """Return the launch that carries out the words from `first` up to `end`."""
        run = self._functions.run_locked if seconds < _SHORT_S else self._functions.run
        address = self._words.ctypes.data
        launch = partial(run, address + 8 * first, address + 8 * end)
        launch.__dict__["owner"] = self  # the words live as long as the launch
        return launch

    def addresses_within(self, array: Array) -> Addresses:
        """Return where the list points into an array, for `Addresses.move`."""
        base = array.ctypes.data
        values = self._words[self._pointers]
        inside = (values >= base) & (values < base + max(array.nbytes, 1))
        places = self._pointers[inside]
        return Addresses(self._words, places, values[inside] - base)


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
