"""When the host issued each step of a traced run: shows whether the device had to wait for it."""

from __future__ import annotations

import threading
import time
from typing import final

from asyncnet_gpu.backends.base import Execution, HostSlice, Ranges


@final
class HostClock:
    """Ticks of the thread that issues a run: one before each step, one after the last."""

    def __init__(self, n_steps: int) -> None:
        self._n_steps = n_steps
        self._ticks: list[tuple[int, float]] = []
        self._thread = ""
        self._ranges: Ranges | None = None
        self._open = False

    def start(self, ranges: Ranges | None) -> None:
        """Begin a run in the calling thread."""
        self._ticks.clear()
        self._thread = f"{threading.current_thread().name} ({threading.get_native_id()})"
        self._ranges = ranges

    def tick(self, step: int) -> None:
        """Note that the host has come to a step; its count of steps means the end."""
        self._ticks.append((step, time.perf_counter()))
        self._mark(step if step < self._n_steps else None)

    def _mark(self, step: int | None) -> None:
        if self._ranges is None:
            return
        if self._open:
            self._ranges.end()
        self._open = step is not None
        if step is not None:
            self._ranges.begin(step)

    def stop(self) -> None:
        """Close what a run that broke off has left open; in the thread that issued it."""
        if not self._ticks or self._ticks[-1][0] != self._n_steps:
            self._ticks.append((self._n_steps, time.perf_counter()))
        self._mark(None)

    def read(self, execution: Execution) -> None:
        """Add a slice for every step that was issued."""
        zero_s = execution.started_s
        for (step, start_s), (_, end_s) in zip(self._ticks, self._ticks[1:], strict=False):
            execution.host.append(
                HostSlice(self._thread, "issue", step, start_s - zero_s, end_s - zero_s)
            )
