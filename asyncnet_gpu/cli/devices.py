"""``asyncnet devices``."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_info

from asyncnet_gpu.backends.cpu.cores import usable_cores
from asyncnet_gpu.backends.cpu.native.library import missing
from asyncnet_gpu.backends.cpu.native.loops import loop_of
from asyncnet_gpu.cli.common import JsonOption, print_json

#: How two GPUs are connected, by NVML's nearest common ancestor.
_PATHS = {
    0: "same board", 10: "one PCIe switch", 20: "several PCIe switches", 30: "host bridge",
    40: "one NUMA node", 50: "across NUMA nodes",
}  # fmt: skip

#: Field to ``f(pynvml, handle)``; None where a GPU does not say.
_FIELDS: Mapping[str, Callable[[Any, Any], Any]] = {
    "name": lambda n, h: _text(n.nvmlDeviceGetName(h)),
    "uuid": lambda n, h: _text(n.nvmlDeviceGetUUID(h)),
    "pci_bus": lambda n, h: _text(n.nvmlDeviceGetPciInfo(h).busId),
    "memory_total_bytes": lambda n, h: n.nvmlDeviceGetMemoryInfo(h).total,
    "memory_used_bytes": lambda n, h: n.nvmlDeviceGetMemoryInfo(h).used,
    "utilisation_percent": lambda n, h: n.nvmlDeviceGetUtilizationRates(h).gpu,
    "sm_clock_mhz": lambda n, h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM),
    "sm_clock_most_mhz": lambda n, h: n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_SM),
    "memory_clock_mhz": lambda n, h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM),
    "power_w": lambda n, h: n.nvmlDeviceGetPowerUsage(h) / 1000,
    "temperature_c": lambda n, h: n.nvmlDeviceGetTemperature(h, n.NVML_TEMPERATURE_GPU),
}


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(devices)


def devices(json: JsonOption = False) -> None:
    """List what nets can run on: GPUs as the driver and as CuPy see them, and the CPU.

    [bold]Example:[/bold] asyncnet devices --json
    """
    found = inventory()
    if json:
        print_json(found)
        return
    console = Console()
    _print_gpus(console, found["nvml"])
    _print_cupy(console, found["cupy"])
    _print_cpu(console, found["cpu"])


def inventory() -> dict[str, Any]:
    """Return everything that the command shows, as JSON-able data."""
    return {"nvml": nvml_view(), "cupy": cupy_view(), "cpu": cpu_view()}


def nvml_view() -> dict[str, Any]:
    """Return driver, GPUs and how each pair is connected; ``problem`` says why there are none."""
    found: dict[str, Any] = {"driver": None, "devices": [], "links": [], "problem": None}
    try:
        import pynvml
    except ImportError as error:
        return {**found, "problem": f"nvidia-ml-py is not installed ({error})"}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {**found, "problem": str(error)}
    try:
        found["driver"] = _text(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        for index, handle in enumerate(handles):
            fields = {name: _asked(pynvml, read, handle) for name, read in _FIELDS.items()}
            found["devices"].append({"index": index, **fields})
        found["links"] = [
            {"devices": [i, j], **_link(pynvml, handles[i], handles[j])}
            for i in range(len(handles))
            for j in range(i)
        ]
        return found
    except pynvml.NVMLError as error:
        return {**found, "problem": str(error)}
    finally:
        pynvml.nvmlShutdown()


def _asked(pynvml: Any, read: Callable[[Any, Any], Any], handle: Any) -> Any:
    try:
        return read(pynvml, handle)
    except pynvml.NVMLError:  # this GPU does not say
        return None


def _link(pynvml: Any, one: Any, other: Any) -> dict[str, Any]:
    level = _asked(pynvml, lambda n, h: n.nvmlDeviceGetTopologyCommonAncestor(h, other), one)
    nvlink = _asked(
        pynvml,
        lambda n, h: n.nvmlDeviceGetP2PStatus(h, other, n.NVML_P2P_CAPS_INDEX_NVLINK),
        one,
    )
    return {"path": _PATHS.get(level), "nvlink": nvlink == 0}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def cupy_view() -> dict[str, Any]:
    """Return what the CUDA backend would use; ``problem`` says why there is nothing."""
    try:
        from asyncnet_gpu.backends.cuda.inventory import inventory as seen_by_cupy
    except ImportError as error:
        return {"version": None, "devices": [], "problem": f"CuPy cannot be imported ({error})"}
    return seen_by_cupy()


def cpu_view() -> dict[str, Any]:
    """Return cores, whether launches run without Python, and the BLAS libraries with their threads.

    ``native_problem`` says why launches are calls from Python.
    """
    np.ones((2, 2)) @ np.ones((2, 2))  # some libraries are loaded at the first product
    problem = _why_not_native()
    libraries = [
        {
            "library": entry["internal_api"],
            "version": entry["version"],
            "threads": entry["num_threads"],
            "architecture": entry.get("architecture"),
        }
        for entry in threadpool_info()
        if entry["user_api"] == "blas"
    ]
    return {
        "name": _processor_name(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "numpy": np.__version__,
        "native": not problem,
        "native_problem": problem or None,
        "blas": libraries,
    }


def _why_not_native() -> str:
    float32 = np.dtype(np.float32)
    if not missing() and loop_of(np.add, (float32, float32, float32)) is None:
        return f"NumPy {np.__version__} does not give out its inner loops"
    return missing()


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


# -- tables --------------------------------------------------------------------------------------


def _print_gpus(console: Console, found: dict[str, Any]) -> None:
    if not found["devices"]:
        console.print(f"No GPU by NVML: {found['problem'] or 'the driver finds none'}")
        return
    heads = ("GPU", "name", "memory used / total", "busy", "SM clock", "memory clock", "power", "")
    table = Table(*heads, title=f"GPUs by NVML, driver {found['driver']}")
    for d in found["devices"]:
        table.add_row(
            str(d["index"]), str(d["name"]),
            f"{_gib(d['memory_used_bytes'])} / {_gib(d['memory_total_bytes'])}",
            _with_unit(d["utilisation_percent"], "%"), _with_unit(d["sm_clock_mhz"], " MHz"),
            _with_unit(d["memory_clock_mhz"], " MHz"), _with_unit(d["power_w"], " W"),
            _with_unit(d["temperature_c"], " °C"),
        )  # fmt: skip
    console.print(table)
    for link in found["links"]:
        one, other = link["devices"]
        how = "NVLink" if link["nvlink"] else link["path"] or "unknown path"
        console.print(f"GPU {one} and {other}: {how}")


def _print_cupy(console: Console, found: dict[str, Any]) -> None:
    if not found["devices"]:
        console.print(f"No device for the CUDA backend: {found['problem'] or 'CuPy finds none'}")
        return
    table = Table(
        "device", "name", "capability", "SMs", "copy engines", "memory", "reaches",
        title=f"The CUDA backend's devices, CuPy {found['version']}",
    )  # fmt: skip
    for d in found["devices"]:
        peers = ", ".join(f"cuda:{i}" for i in d["reaches"]) or "-"
        table.add_row(
            f"cuda:{d['index']}", d["name"], d["compute_capability"], str(d["multiprocessors"]),
            str(d["copy_engines"]), _gib(d["memory_total_bytes"]), peers,
        )  # fmt: skip
    console.print(table)


def _print_cpu(console: Console, found: dict[str, Any]) -> None:
    console.print(
        f"CPU: {found['name']}, {found['usable_cores']} of {found['cores']} cores usable; "
        f"NumPy {found['numpy']}"
    )
    why = found["native_problem"]
    console.print(f"Launches on the CPU: {f'from Python ({why})' if why else 'native'}")
    for blas in found["blas"]:
        architecture = f", {blas['architecture']}" if blas["architecture"] else ""
        console.print(
            f"BLAS: {blas['library']} {blas['version']}{architecture}, {blas['threads']} threads"
        )


def _gib(nbytes: int | None) -> str:
    return "-" if nbytes is None else f"{nbytes / 2**30:.1f} GiB"


def _with_unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.0f}{unit}"
