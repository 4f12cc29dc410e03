"""Timing that survives a noisy machine: candidates take turns, results are ratios of medians."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each round of one candidate."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def fastest_s(self) -> float:
        """The quietest round: what other processes took from the others it shows least."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        q1, _, q3 = statistics.quantiles(self.seconds, n=4)
        return (q3 - q1) / self.median_s


def interleave(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 15, warm_ups: int = 3
) -> dict[str, Timing]:
    """Call the candidates in turn, `rounds` times each, after `warm_ups` unmeasured turns."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warm_ups + rounds):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            if turn >= warm_ups:
                seconds[name].append(elapsed)
    return {name: Timing(name, tuple(values)) for name, values in seconds.items()}


def paired_ratio(timings: Mapping[str, Timing], top: str, bottom: str) -> float:
    """Return the median over rounds of top / bottom: drift that hits a round hits both."""
    pairs = zip(timings[top].seconds, timings[bottom].seconds, strict=True)
    return statistics.median(a / b for a, b in pairs)


def machine() -> dict[str, Any]:
    """Say where a result comes from."""
    import numpy

    from asyncnet_gpu.backends.cpu.backend import usable_cores

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": usable_cores(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cuda_devices() -> list[str]:
    """Return the names of the CUDA devices that answer."""
    try:
        import cupy
    except ImportError:
        return []
    if not cupy.is_available():
        return []
    runtime = cupy.cuda.runtime
    return [
        runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())
    ]


def has_gpu() -> bool:
    """Whether there is hardware behind the CUDA devices: without it device times mean nothing."""
    names = cuda_devices()
    return bool(names) and not any("software" in name for name in names)


def device_bytes(backend: str) -> int:
    """Bytes in use on all CUDA devices, with what every pool has reserved; 0 on other backends."""
    if backend != "cuda":
        return 0
    import cupy

    used = 0
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        with cupy.cuda.Device(index):
            free, total = cupy.cuda.runtime.memGetInfo()
        used += total - free
    return used


def save(name: str, result: Mapping[str, Any]) -> Path:
    """Write a result with its machine to ``benchmarks/results``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    return path
