"""When each step really ran: timed events around every step, read after the run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import final

from cupy.cuda import runtime

from asyncnet_gpu.backends.base import Execution, Slice, dependents
from asyncnet_gpu.backends.cuda.context import Stream
from asyncnet_gpu.backends.cuda.device import OnDevice
from asyncnet_gpu.backends.cuda.faults import NOT_READY, driver_errors
from asyncnet_gpu.backends.cuda.resources import Resources
from asyncnet_gpu.errors import DeviceError, message
from asyncnet_gpu.plan.types import Plan


@final
class Stopwatch:
    """Timed events of a slot, made when a run is traced for the first time."""

    def __init__(self, plan: Plan, streams: Sequence[Stream], resources: Resources) -> None:
        self._plan = plan
        self._device_of = [streams[s.stream].device for s in plan.steps]
        self.pairs = [
            (resources.event(d, timed=True), resources.event(d, timed=True))
            for d in self._device_of
        ]
        self._first = {s.device: s for s in reversed(streams)}
        self._zero = {d: resources.event(d, timed=True) for d in self._first}
        self._zero_s: dict[int, float] = {}

    def start(self, until: float) -> None:
        """Fix the zero of every device's clock on the host's: events of two cannot be compared.

        Raises
        ------
        DeviceError
            When a device with nothing to do has not answered at time `until` (monotonic clock).
        """
        for device, stream in self._first.items():
            with OnDevice(device):
                runtime.eventRecord(self._zero[device], stream.ptr)
                # Host wait: the time is that of the event only once the event has completed.
                while runtime.eventQuery(self._zero[device]) == NOT_READY:
                    if time.monotonic() > until:
                        raise _no_answer(device)
            self._zero_s[device] = time.perf_counter()

    def read(self, execution: Execution) -> None:
        """Add a slice for every step that ran; the run has ended."""
        assert execution.slices is not None
        if execution.cancelled:
            return  # what was not issued left the times of an earlier run behind
        failed = {e.step for e in execution.errors if e.step >= 0}
        for step in tuple(failed):
            failed |= dependents(self._plan, step)
        for step, (begin, end) in enumerate(self.pairs):
            if step in failed:
                continue
            device = self._device_of[step]
            shift = self._zero_s[device] - execution.started_s
            try:
                start_ms = runtime.eventElapsedTime(self._zero[device], begin)
                end_ms = runtime.eventElapsedTime(self._zero[device], end)
            except driver_errors():
                continue  # never issued, because the run broke off before it
            execution.slices.append(Slice(step, shift + 1e-3 * start_ms, shift + 1e-3 * end_ms))


def _no_answer(device: int) -> DeviceError:
    return DeviceError(
        message(
            "trace", f"the clock of cuda:{device} cannot be read", expected="an answer in time",
            got="none", remedy="Something else keeps the device; wait for it, or raise timeout_s=.",
        )
    )  # fmt: skip
