"""Times of a traced run on the CPU: what each step took, where, and how much of it on a core."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import final

from asyncnet_gpu.backends.base import Execution, HostSlice, Slice

_Note = tuple[str, int, float, float, float]


def _no_time() -> float:
    return 0.0


@final
class LaneRecorder:
    """Carries instructions of one lane out in the thread that made it, and notes when.

    While lanes run only bare numbers are kept, since every microsecond under Python's lock may keep
    another lane waiting. The clock of a thread, which stands still while the thread waits for the
    lock or for a core, is read only when asked for: that call of the system costs more than all
    else here, and several times that where other processes want the cores too.
    """

    def __init__(self, execution: Execution) -> None:
        self._notes: list[_Note] = []
        self._ranges = execution.ranges
        self._thread = f"{threading.current_thread().name} ({threading.get_native_id()})"
        self._cpu_time = thread_time if execution.cpu_times else _no_time
        self._begun_cpu_s = self._cpu_time()

    def carry_out(self, what: str, step: int, instruction: Callable[[], object]) -> None:
        """Call a launch ("run") or a wait ("wait"); what raises leaves no times behind."""
        if self._ranges is not None and what == "run":
            self._carry_out_in_range(step, instruction)
            return
        start_s = perf_counter()
        instruction()
        self._notes.append((what, step, start_s, perf_counter(), self._cpu_time()))

    def _carry_out_in_range(self, step: int, instruction: Callable[[], object]) -> None:
        assert self._ranges is not None
        self._ranges.begin(step)
        try:
            start_s = perf_counter()
            instruction()
            self._notes.append(("run", step, start_s, perf_counter(), self._cpu_time()))
        finally:
            self._ranges.end()

    def read(self, execution: Execution) -> None:
        """Add what was noted to the execution, once the lane has ended."""
        assert execution.slices is not None
        zero_s, before_s = execution.started_s, self._begun_cpu_s
        on_core_s: float | None = None
        for what, step, start_s, end_s, cpu_s in self._notes:
            start_s, end_s = start_s - zero_s, end_s - zero_s
            if what == "run":
                execution.slices.append(Slice(step, start_s, end_s))
            if execution.cpu_times:
                # From the end of the instruction before: the little between them counts as work.
                on_core_s = min(cpu_s - before_s, end_s - start_s)
                before_s = cpu_s
            execution.host.append(HostSlice(self._thread, what, step, start_s, end_s, on_core_s))
