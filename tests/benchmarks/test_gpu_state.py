"""The parts that only a GPU needs: its state by NVML, device time by events."""

from __future__ import annotations

import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from asyncnet_gpu.cli.bench import _usual_scale
from benchmarks.nets import vec
from benchmarks.suites import nvml
from benchmarks.suites.measure import Options, measure
from benchmarks.suites.metg import one_task_on_device_s
from benchmarks.suites.report import grids


class NVMLError(Exception):
    """As in pynvml."""


@pytest.fixture
def temperatures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put a GPU in place whose temperature rises with every sample and that hides its power."""
    seen: list[int] = []

    def temperature(handle: object, kind: object) -> int:
        seen.append(40 + len(seen))
        return seen[-1]

    def refuse(*_: object) -> None:
        raise NVMLError

    module = ModuleType("pynvml")
    vars(module).update(
        NVMLError=NVMLError, NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda i: i, nvmlDeviceGetTemperature=temperature,
        nvmlDeviceGetClockInfo=lambda h, kind: 1000 * kind, nvmlDeviceGetPowerUsage=refuse,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda h: 0,
        nvmlDeviceGetMemoryInfo=lambda h: SimpleNamespace(used=5, total=9),
        nvmlDeviceGetUtilizationRates=lambda h: SimpleNamespace(gpu=3),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return seen


def test_state_is_sampled_before_during_and_after(temperatures: list[int]) -> None:
    assert nvml.gpu_count() == 1
    with nvml.Watch(present=True, every_s=0.005) as watch:
        until = time.monotonic() + 30
        while len(temperatures) < 5 and time.monotonic() < until:
            time.sleep(0.002)
    assert watch.report is not None
    assert watch.report["before"]["temperature_c"] == 40
    assert watch.report["after"]["temperature_c"] == temperatures[-1] >= 45
    assert watch.report["during"]["temperature_c"] == [40, temperatures[-1]]
    assert watch.report["before"]["power_w"] is None
    assert watch.report["during"]["power_w"] is None
    assert watch.report["before"]["sm_clock_mhz"] == 1000


def test_without_a_gpu_nothing_is_sampled(temperatures: list[int]) -> None:
    with nvml.Watch(present=False) as watch:
        pass
    assert watch.report is None
    assert temperatures == []


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.gpu_count() == 0


@pytest.mark.gpu
def test_device_and_host_time_are_taken_apart() -> None:
    # Whatever answers as a device here is treated as a GPU, so that this code runs in a test.
    # What it measures on software means nothing and is looked at for presence alone.
    row = measure(vec.build(0.002), Options(backend="cuda", rounds=2, seconds=0.1))
    for name in ("serial", "streams", "graph-serial", "graph", "auto", "cupy", "cupy streams"):
        numbers: dict[str, Any] = row["candidates"][name]
        assert numbers["median_ms"] > 0
        assert numbers["host_ms"] > 0
        assert numbers["device_ms"] >= 0
    document = {"backend": "cuda", "host_only": False, "suites": {"grcuda": {"rows": [row]}}}
    (grid,) = grids(document)
    assert grid.heads[2:4] == ("device ms", "host ms")
    assert len(grid.rows[0]) == len(grid.heads)


@pytest.mark.gpu
def test_one_task_on_the_device_has_a_time() -> None:
    assert one_task_on_device_s(1 << 10, 3, repeats=2) > 0


def test_sizes_follow_what_is_there() -> None:
    assert _usual_scale("cpu", True) == 1.0
    assert _usual_scale("cuda", True) > 1.0
    assert _usual_scale("cuda", False) < 0.1  # nothing is timed on software: only checked
