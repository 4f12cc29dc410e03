"""Events between streams that are threads: locks, or flags in memory where lists of calls run.

A flag is recorded and watched without Python: what follows the wait begins a microsecond later,
where a thread that sleeps on a lock wakes up after fifty. Only a thread that has watched for
longer than that goes to sleep.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
from collections.abc import Callable
from typing import Protocol, final

import numpy as np

from asyncnet_gpu.backends.cpu.native.encode import Calls
from asyncnet_gpu.backends.cpu.native.library import DrainError, StuckError

#: How long a thread watches a flag before it sleeps: what waking up would take.
_SPIN_S = 50e-6

#: The same numbers stand in ``call_list.c``.
_LEAVE_AT_WAIT, _LEAVE_NOW = 1, 2

#: One side of an event: to call, or to be written into a list.
Side = Callable[[], object] | Calls


class Events(Protocol):
    """All events of a program."""

    @property
    def state(self) -> int | None:
        """Address of what the C function wants to know; None where events are no part of lists."""

    def wait(self, event: int) -> tuple[Side, Callable[[], bool]]:
        """Return a wait for an event, and whether it would end at once."""

    def record(self, event: int) -> Side:
        """Return what records an event."""

    def begin(self) -> None:
        """Close all events for a new run."""

    def leave(self, *, now: bool) -> None:
        """Have every wait of this run raise `DrainError` once it has ended, or `now`."""

    def give_up(self) -> None:
        """Send home whoever waits."""


@final
class LockEvents:
    """A lock for each wait, which the recorder opens and the wait closes again.

    A lock of its own for each waiting step makes an event reset itself: after a run every lock is
    closed as before it.
    """

    state = None

    def __init__(self, n_events: int, limit_s: float) -> None:
        self._limit_s = limit_s
        self._locks: list[list[_thread.LockType]] = [[] for _ in range(n_events)]
        self._leaving = False

    def wait(self, event: int) -> tuple[Side, Callable[[], bool]]:
        """Return a wait with a lock of its own."""
        lock = _thread.allocate_lock()
        lock.acquire()
        self._locks[event].append(lock)

        def wait() -> None:
            if not lock.acquire(True, self._limit_s):
                raise StuckError
            if self._leaving:
                raise DrainError

        return wait, lambda: not lock.locked()

    def record(self, event: int) -> Side:
        """Open the locks of all steps that wait for the event."""
        locks = self._locks[event]

        def record() -> None:
            for lock in locks:
                lock.release()

        return record

    def begin(self) -> None:
        """Close the locks whose wait was interrupted in a run that failed; others are closed."""
        if self._leaving:
            for lock in (lock for locks in self._locks for lock in locks):
                lock.acquire(False)
        self._leaving = False

    def leave(self, *, now: bool) -> None:
        """Have every wait raise `DrainError`; a lock that nobody opens yet is waited for."""
        self._leaving = True

    def give_up(self) -> None:
        """Open all locks."""
        for lock in (lock for locks in self._locks for lock in locks):
            with contextlib.suppress(RuntimeError):  # open already
                lock.release()


class _State(ctypes.Structure):
    """``run_state`` of ``call_list.c``."""

    _fields_ = (
        ("run", ctypes.c_int32),
        ("stop", ctypes.c_int32),
        ("sleepers", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("spin_ns", ctypes.c_int64),
        ("limit_ns", ctypes.c_int64),
    )


@final
class FlagEvents:
    """A number in memory for each event: that of the last run in which it was recorded.

    Parameters
    ----------
    spin
        Whether there is a core for each thread, so that watching takes nobody's time.
    """

    def __init__(self, n_events: int, limit_s: float, *, spin: bool) -> None:
        # A cache line for each: threads that watch different events leave one another alone.
        self._flags = np.zeros((n_events, 16), np.int32)
        self._state = _State(spin_ns=int(_SPIN_S * 1e9) if spin else 0, limit_ns=int(limit_s * 1e9))

    @property
    def state(self) -> int:
        """Address of what the C function wants to know."""
        return ctypes.addressof(self._state)

    def wait(self, event: int) -> tuple[Side, Callable[[], bool]]:
        """Write a wait down."""
        calls = Calls()
        calls.wait(self._address(event))
        flags, state = self._flags, self._state
        return calls, lambda: bool(flags[event, 0] == state.run) or state.stop == _LEAVE_NOW

    def record(self, event: int) -> Side:
        """Write a record down."""
        calls = Calls()
        calls.record(self._address(event))
        return calls

    def _address(self, event: int) -> int:
        return self._flags.ctypes.data + event * self._flags.strides[0]

    def begin(self) -> None:
        """Count the run: no flag has its number."""
        self._state.run = self._state.run + 1
        self._state.stop = 0

    def leave(self, *, now: bool) -> None:
        """Have lists end at their next wait, or at their next call."""
        if self._state.stop != _LEAVE_NOW:
            self._state.stop = _LEAVE_NOW if now else _LEAVE_AT_WAIT

    def give_up(self) -> None:
        """Have lists end now: whoever sleeps looks around now and then."""
        self._state.stop = _LEAVE_NOW
