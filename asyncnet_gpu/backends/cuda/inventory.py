"""What CuPy sees of the machine: versions, devices, which of them reach each other's memory."""

from __future__ import annotations

from typing import Any

import cupy
from cupy.cuda import runtime

from asyncnet_gpu.backends.cuda.faults import driver_errors


def inventory() -> dict[str, Any]:
    """Return versions and devices as JSON-able data; without a device the list is empty."""
    found: dict[str, Any] = {"version": cupy.__version__, "devices": [], "problem": None}
    try:
        found["runtime_version"] = runtime.runtimeGetVersion()
        found["driver_version"] = runtime.driverGetVersion()
        count = runtime.getDeviceCount()
    except driver_errors() as error:
        return {**found, "problem": str(error)}
    found["devices"] = [_device(index, count) for index in range(count)]
    return found


def _device(index: int, count: int) -> dict[str, Any]:
    properties = runtime.getDeviceProperties(index)
    return {
        "index": index,
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "memory_total_bytes": properties["totalGlobalMem"],
        "copy_engines": properties["asyncEngineCount"],
        "reaches": [
            other
            for other in range(count)
            if other != index and runtime.deviceCanAccessPeer(index, other)
        ],
    }
