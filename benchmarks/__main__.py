"""Every benchmark on whatever there is: ``python -m benchmarks [--backend cuda] [--json PATH]``.

A benchmark is a module of this folder with ``measure(backend) -> dict``: it prints what it finds as
ratios of one interleaved run and returns it. Where CUDA devices are only software, nothing that
times a device is run: a number of a GPU comes from a GPU or not at all.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncnet_gpu as ag
from benchmarks.harness import cuda_devices, has_gpu, machine


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark module and where it makes sense.

    Attributes
    ----------
    backends
        Those it can be run for.
    times_devices
        Whether a software device would make its numbers meaningless.
    """

    name: str
    backends: tuple[str, ...]
    times_devices: bool = False


BENCHMARKS = (
    Benchmark("core", ("cpu", "cuda"), times_devices=True),
    Benchmark("planning", ("cpu", "cuda")),
    Benchmark("cuda_host_cost", ("cuda",)),
    Benchmark("soak", ("cpu", "cuda")),
    Benchmark("trace_cost", ("cpu", "cuda")),
)


def not_run(benchmark: Benchmark, backend: str) -> str:
    """Return why a benchmark cannot be run here; empty when it can."""
    if importlib.util.find_spec(f"benchmarks.{benchmark.name}") is None:
        return "it is not in this distribution"
    if backend not in benchmark.backends:
        return f"it is for {' and '.join(benchmark.backends)}"
    if backend == "cuda" and benchmark.times_devices and not has_gpu():
        return "it times the device, and there is no GPU behind the CUDA devices"
    return ""


def choose_backend(asked: str) -> str:
    """Return cpu or cuda; raises `SystemExit` when CUDA is asked for and no device answers."""
    devices = cuda_devices()
    if asked == "cuda" and not devices:
        raise SystemExit("benchmarks: no CUDA device answers; --backend cpu needs none")
    return ("cuda" if devices else "cpu") if asked == "auto" else asked


def run_all(backend: str, only: list[str], runs: int) -> dict[str, Any]:
    """Run what is asked for, one after the other, and return name to result."""
    results: dict[str, Any] = {}
    for benchmark in BENCHMARKS:
        if only and benchmark.name not in only:
            continue
        why = not_run(benchmark, backend)
        if why:
            print(f"\n== {benchmark.name}: not run, {why}")
            results[benchmark.name] = {"not_run": why}
            continue
        print(f"\n== {benchmark.name}", flush=True)
        measure = importlib.import_module(f"benchmarks.{benchmark.name}").measure
        if benchmark.name == "soak":
            measure = partial(measure, runs=runs)
        results[benchmark.name] = measure(backend)
    return results


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--backend", choices=["auto", "cpu", "cuda"], default="auto")
    made.add_argument(
        "--only", action="append", default=[], choices=[b.name for b in BENCHMARKS],
        help="run this one; may be given several times",
    )  # fmt: skip
    made.add_argument("--json", type=Path, help="write the results to this file")
    made.add_argument("--runs", type=int, default=10_000, help="of the soak")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    backend = choose_backend(options.backend)
    where = {**machine(), "cuda_devices": cuda_devices(), "gpu": has_gpu()}
    print(f"asyncnet_gpu {ag.__version__}, backend {backend}, " + json.dumps(where))
    results = run_all(backend, options.only, options.runs)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"version": ag.__version__, "backend": backend, "machine": where, **results}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
        print(f"\nwritten to {options.json}")
    if all("not_run" in result for result in results.values()):
        print("benchmarks: nothing was run", file=sys.stderr)
        return 1
    return 1 if any(result.get("complaints") for result in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
