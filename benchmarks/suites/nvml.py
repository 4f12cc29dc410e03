"""State of a GPU before, during and after a comparison, by NVML."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

Sample = dict[str, Any]


def gpu_count() -> int:
    """Number of GPUs that NVML finds; 0 without a driver."""
    try:
        import pynvml
    except ImportError:
        return 0
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


#: Name and unit of a field to ``f(pynvml, handle)``; what a GPU does not support is None.
_FIELDS: Mapping[str, Any] = {
    "sm_clock_mhz": lambda n, h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM),
    "memory_clock_mhz": lambda n, h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM),
    "power_w": lambda n, h: n.nvmlDeviceGetPowerUsage(h) / 1000,
    "temperature_c": lambda n, h: n.nvmlDeviceGetTemperature(h, n.NVML_TEMPERATURE_GPU),
    "throttle_reasons": lambda n, h: n.nvmlDeviceGetCurrentClocksThrottleReasons(h),
    "memory_used_bytes": lambda n, h: n.nvmlDeviceGetMemoryInfo(h).used,
    "utilisation_percent": lambda n, h: n.nvmlDeviceGetUtilizationRates(h).gpu,
}


def sample(index: int = 0) -> Sample:
    """Return the state of a GPU now."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        found: Sample = {}
        for name, read in _FIELDS.items():
            try:
                found[name] = read(pynvml, handle)
            except pynvml.NVMLError:
                found[name] = None
        return found
    finally:
        pynvml.nvmlShutdown()


class Watch:
    """Samples a GPU in a thread of its own from entry to exit; does nothing without a GPU.

    Attributes
    ----------
    report
        ``before``, ``after``, and smallest and largest value ``during``; None without a GPU.
    """

    def __init__(self, *, present: bool, index: int = 0, every_s: float = 0.5) -> None:
        self.report: dict[str, Any] | None = None
        self._present, self._index, self._every_s = present, index, every_s
        self._samples: list[Sample] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="bench:nvml", daemon=True)

    def __enter__(self) -> Watch:
        if self._present:
            self._samples.append(sample(self._index))
            self._thread.start()
        return self

    def _loop(self) -> None:
        while not self._end.wait(self._every_s):
            self._samples.append(sample(self._index))

    def __exit__(self, *error: object) -> None:
        if not self._present:
            return
        self._end.set()
        self._thread.join(10)
        self._samples.append(sample(self._index))
        during = {}
        for name in _FIELDS:
            values = [s[name] for s in self._samples if s[name] is not None]
            during[name] = [min(values), max(values)] if values else None
        self.report = {
            "before": self._samples[0], "during": during, "after": self._samples[-1]
        }  # fmt: skip
