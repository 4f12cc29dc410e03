"""Times of a traced run on the CPU: what each step took, where, and how much of it on a core."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from time import perf_counter, thread_time
from typing import final

import numpy as np

from asyncnet_gpu.backends.base import Execution, HostSlice, Slice
from asyncnet_gpu.backends.cpu.native.calls import CallList
from asyncnet_gpu.backends.cpu.native.library import LaneState

#: Wait or run, step, begin and end, and the end on the clock of the thread.
_Note = tuple[str, int, float, float, float]


class Kind(Enum):
    """What an instruction does."""

    WAIT = "wait"
    RUN = "run"
    RECORD = "record"


_Meaning = Sequence[tuple[Kind, int]]


def _monotonic_to_perf_s() -> float:
    """Return what to add to the clock that lists read to get the one of Python's notes."""
    if "CLOCK_MONOTONIC)" in time.get_clock_info("perf_counter").implementation:
        return 0.0  # the same clock
    return perf_counter() - time.clock_gettime(time.CLOCK_MONOTONIC)


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
        self._notes: list[_Note | tuple[np.ndarray[tuple[int, int], np.dtype[np.int64]], _Meaning]]
        self._notes = []
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

    def carry_out_list(
        self, instruction: Callable[[], object], calls: CallList, lane: LaneState,
        meaning: _Meaning,
    ) -> None:  # fmt: skip
        """Call a list, which notes the times of its items; of those that it came to if it raises.

        Parameters
        ----------
        meaning
            Kind and step of each item.
        """
        stamps = np.zeros((len(calls) + 1, 2), np.int64)
        lane.thread_clock = self._cpu_time is thread_time
        lane.stamps, lane.marks = stamps.ctypes.data, calls.marks.ctypes.data
        try:
            instruction()
        finally:
            n = ((lane.stamps or 0) - stamps.ctypes.data) // stamps.strides[0]
            lane.marks = None
            self._notes.append((stamps[:n], meaning))

    def _carry_out_in_range(self, step: int, instruction: Callable[[], object]) -> None:
        assert self._ranges is not None
        self._ranges.begin(step)
        try:
            start_s = perf_counter()
            instruction()
            self._notes.append(("run", step, start_s, perf_counter(), self._cpu_time()))
        finally:
            self._ranges.end()

    def read(self, slices: list[Slice], host: list[HostSlice], zero_s: float) -> None:
        """Add what was noted, once the lane has ended; the run began at `zero_s`."""
        before_s, cpu_times = self._begun_cpu_s, self._cpu_time is thread_time
        on_core_s: float | None = None
        for what, step, start_s, end_s, cpu_s in self._all_notes():
            start_s, end_s = start_s - zero_s, end_s - zero_s
            if cpu_times:
                # From the end of the instruction before: the little between them counts as work.
                on_core_s = min(cpu_s - before_s, end_s - start_s)
                before_s = cpu_s
            if what == Kind.RECORD.value:
                continue
            if what == Kind.RUN.value:
                slices.append(Slice(step, start_s, end_s))
            host.append(HostSlice(self._thread, what, step, start_s, end_s, on_core_s))

    def _all_notes(self) -> Iterator[_Note]:
        shift_s = _monotonic_to_perf_s()
        for note in self._notes:
            if len(note) == 5:
                yield note
                continue
            stamps, meaning = note
            times = stamps.tolist()
            for (kind, step), (start, _), (end, own) in zip(
                meaning, times, times[1:], strict=False  # it may have been left before its end
            ):  # fmt: skip
                yield kind.value, step, 1e-9 * start + shift_s, 1e-9 * end + shift_s, 1e-9 * own
