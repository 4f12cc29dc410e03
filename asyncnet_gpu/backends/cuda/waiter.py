"""Notices the end of runs that nobody waits for: one thread that asks events, never a callback.

A Python callback on a CUDA stream can deadlock between the driver's lock and Python's; asking an
event cannot. The pauses between two rounds grow with the age of the youngest run, so that short
runs are noticed soon and long ones cost nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

_log = logging.getLogger("asyncnet_gpu")

_SHORTEST_PAUSE_S = 20e-6
_LONGEST_PAUSE_S = 1e-3
_SHARE_OF_AGE = 0.05
_IDLE_S = 5.0


@dataclass(slots=True, eq=False)
class Watched:
    """A run under way: whether it has ended, what to do then, since when it is watched."""

    ended: Callable[[], bool]
    finish: Callable[[], None]
    since_s: float


def pause_s(age_s: float) -> float:
    """Return how long to sleep before asking again."""
    return min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, _SHARE_OF_AGE * age_s))


@final
class Waiter:
    """The thread, started with the first run; ends by itself when it has had nothing to do."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: list[Watched] = []
        self._thread: threading.Thread | None = None

    def watch(self, ended: Callable[[], bool], finish: Callable[[], None]) -> None:
        """Call `finish` in the waiter's thread once `ended` says so."""
        with self._changed:
            self._watched.append(Watched(ended, finish, time.monotonic()))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._loop, name="asyncnet-cuda-waiter", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def _loop(self) -> None:
        while self._wait_for_runs():
            self._round()  # holds its runs only as long as it takes: they belong to the caller

    def _wait_for_runs(self) -> bool:
        """Sleep until there is something to watch; False ends the thread."""
        with self._changed:
            if not self._watched and not self._changed.wait_for(
                lambda: bool(self._watched), _IDLE_S
            ):
                self._thread = None
                return False
        return True

    def _round(self) -> None:
        """Ask every run once; finish those that have ended, or pause when none has."""
        with self._changed:
            watched = list(self._watched)
        done = [run for run in watched if run.ended()]
        if not done:
            time.sleep(pause_s(time.monotonic() - max(run.since_s for run in watched)))
            return
        with self._changed:
            for run in done:
                self._watched.remove(run)
        for run in done:
            self._finish(run)

    @staticmethod
    def _finish(run: Watched) -> None:
        try:
            run.finish()
        except Exception:  # a callback of the user's; the other runs must still be noticed
            _log.exception("[cuda] a callback at the end of a run failed")
