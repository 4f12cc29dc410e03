"""Runs suites and returns one document: everything that a reader needs to judge the numbers."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import asyncnet_gpu as ag
from asyncnet_gpu.errors import NetError, message

from ..harness import cuda_devices, has_gpu, machine
from ..nets.taskbench import PATTERNS
from .catalog import SUITES, WORKLOADS
from .measure import Options, Row, measure
from .metg import measure_metg
from .nvml import Watch, gpu_count
from .overhead import measure_overhead
from .serving import measure_requests

SCHEMA = 1
Document = dict[str, Any]
#: Told what is measured now: suite and name.
Progress = Callable[[str, str], None]

_PACKAGES = (
    "numpy", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python", "torch", "dask", "onnxruntime",
    "threadpoolctl",
)  # fmt: skip


def silent(suite: str, name: str) -> None:
    """Report no progress."""


def choose_backend(asked: str) -> str:
    """Return cpu or cuda; "auto" is CUDA where a device answers."""
    if asked not in ("auto", "cpu", "cuda"):
        raise NetError(
            message("bench", f"backend={asked!r}", expected="auto, cpu or cuda", got=repr(asked),
                    remedy="Choose one of them.")
        )  # fmt: skip
    devices = cuda_devices()
    if asked == "cuda" and not devices:
        raise ag.DeviceError(
            message("bench", "no CUDA device answers", expected="at least one", got="none",
                    remedy="--backend cpu needs none.")
        )  # fmt: skip
    return ("cuda" if devices else "cpu") if asked == "auto" else asked


def chosen_suites(names: Sequence[str]) -> list[str]:
    """Return suites in order of the catalog; "all" stands for every one."""
    unknown = sorted({*names} - {*SUITES, "all"})
    if unknown:
        raise NetError(
            message("bench", f"no suite {unknown[0]!r}", expected=", ".join((*SUITES, "all")),
                    got=", ".join(names), remedy="Name one of them.")
        )  # fmt: skip
    return [s for s in SUITES if "all" in names or s in names]


def chosen_workloads(suites: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the workloads meant by `names`, whatever their case; each must be in some suite."""
    known = {name.lower(): name for suite in suites for name in WORKLOADS.get(suite, ())}
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        raise NetError(
            message("bench", f"no workload {unknown[0]!r} in {', '.join(suites)}",
                    expected=", ".join(known.values()) or "a suite of several workloads",
                    got=", ".join(names), remedy="Name one of them, or its --suite.")
        )  # fmt: skip
    return [known[name.lower()] for name in names]


def run(
    suites: Sequence[str],
    options: Options,
    *,
    only: Sequence[str] = (),
    progress: Progress = silent,
) -> Document:
    """Run suites.

    Parameters
    ----------
    suites
        Names from the catalog, or "all".
    only
        When given, the workloads to take from the suites, whatever their case.

    Raises
    ------
    NetError
        If there is no such suite or workload: a run that measures nothing is no success.
    """
    chosen = chosen_suites(suites)
    only = chosen_workloads(chosen, only)
    document = describe(options)
    with Watch(present=options.backend == "cuda" and options.real_device) as watch:
        document["suites"] = {suite: _suite(suite, options, only, progress) for suite in chosen}
    document["gpu_state"] = watch.report
    return document


def _suite(suite: str, options: Options, only: Sequence[str], progress: Progress) -> Row:
    if suite == "overhead":
        progress(suite, "chain")
        rows, absent = measure_overhead(options)
        return {"rows": rows, "absent": absent}
    if suite == "requests":
        progress(suite, "towers")
        return {"rows": measure_requests(options)}
    rows = []
    for name, build in WORKLOADS[suite].items():
        if only and name not in only:
            continue
        workload = build(options.scale)
        for resident in (True, False) if options.backend == "cuda" else (True,):
            progress(suite, name)
            rows.append(measure(workload, options, resident=resident))
    found: Row = {"rows": rows}
    if suite == "taskbench" and not options.host_only and not only:
        found["metg"] = []
        for pattern in PATTERNS:
            for mode in ("serial", "streams", "graph")[: 3 if options.backend == "cuda" else 2]:
                progress(suite, f"METG {pattern}, {mode}")
                found["metg"].append(measure_metg(pattern, options, mode))
    return found


def describe(options: Options) -> Document:
    """Say what is measured, on what, and with which versions."""
    return {
        "schema": SCHEMA,
        "version": ag.__version__,
        "commit": commit(),
        "backend": options.backend,
        "seed": options.seed,
        "scale": options.scale,
        "pinned": options.pin,
        "machine": {**machine(), "processor_name": _processor_name()},
        "driver": _driver(),
        "devices": cuda_devices() if options.backend == "cuda" else [],
        "device_times": options.backend == "cuda" and options.real_device,
        "host_only": options.host_only,
        "versions": {p: v for p in _PACKAGES if (v := _version(p))},
    }


def real_device() -> bool:
    """Whether there is a GPU whose times mean something."""
    return gpu_count() > 0 and has_gpu()


def commit() -> str | None:
    """Return the commit of the checkout that this file lies in, with + when it has changes."""
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        # Only where this file is tracked: an environment inside another repository is not ours.
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], check=True,
                       capture_output=True, timeout=10)  # fmt: skip
        name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=True, text=True,
                              capture_output=True, timeout=10).stdout.strip()  # fmt: skip
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "../../asyncnet_gpu"],
                                 capture_output=True, timeout=10).returncode  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return name + "+" * bool(changed)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    if gpu_count() == 0:
        return None
    import pynvml

    pynvml.nvmlInit()
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def _processor_name() -> str | None:
    if not os.path.exists("/proc/cpuinfo"):
        return None
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else None
