"""Times of a traced run on the CPU: what each step took, where, and how much of it on a core."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import final

from asyncnet_gpu.backends.base import Execution, HostSlice, Slice


def thread_name() -> str:
    """Return the name of this thread with the number that the system gives it: names repeat."""
    return f"{threading.current_thread().name} ({threading.get_native_id()})"


@final
class LaneRecorder:
    """Carries instructions of one lane out in the thread that made it, and notes when.

    The clock of the thread stands still while the thread waits for Python's lock or for a core:
    what a step took beyond it, it did not work.
    """

    def __init__(self, execution: Execution) -> None:
        self._slices = execution.slices if execution.slices is not None else []
        self._host = execution.host
        self._ranges = execution.ranges
        self._zero_s = execution.started_s
        self._thread = thread_name()

    def carry_out(self, what: str, step: int, instruction: Callable[[], object]) -> None:
        """Call a launch ("run") or a wait ("wait"); what raises leaves no times behind."""
        ranges = self._ranges if what == "run" else None
        if ranges is not None:
            ranges.begin(step)
        cpu_s = time.thread_time()
        start_s = time.perf_counter()
        try:
            instruction()
        finally:
            end_s = time.perf_counter()
            cpu_s = time.thread_time() - cpu_s
            if ranges is not None:
                ranges.end()
        start_s, end_s = start_s - self._zero_s, end_s - self._zero_s
        if what == "run":
            self._slices.append(Slice(step, start_s, end_s))
        self._host.append(HostSlice(self._thread, what, step, start_s, end_s, cpu_s))
