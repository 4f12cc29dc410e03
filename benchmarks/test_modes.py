"""The workloads under pytest-benchmark: ``python -m pytest benchmarks --benchmark-only``.

A group for each workload with serial, streams and graph side by side; ``--benchmark-save`` and
``--benchmark-compare`` work as usual. BENCH_BACKEND (cpu), BENCH_SCALE (1.0) and BENCH_SUITES
(grcuda) choose what is built. Against rivals, round by round: ``asyncnet bench``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from benchmarks.harness import has_gpu, machine
from benchmarks.nets.workload import Workload
from benchmarks.suites.analysis import measure_parallelism
from benchmarks.suites.catalog import WORKLOADS
from benchmarks.suites.runner import chosen_suites, commit

BACKEND = os.environ.get("BENCH_BACKEND", "cpu")
SCALE = float(os.environ.get("BENCH_SCALE", "1.0"))
SUITES = [s for s in chosen_suites(os.environ.get("BENCH_SUITES", "grcuda").split(","))
          if s in WORKLOADS]  # fmt: skip
BUILDS = {name: build for suite in SUITES for name, build in WORKLOADS[suite].items()}
MODES = ("serial", "streams", "graph")


@lru_cache(maxsize=1)
def built(name: str) -> tuple[Workload, dict[str, Any]]:
    """Return a workload and the outputs of serial mode: the oracle of all modes."""
    workload = BUILDS[name](SCALE)
    with workload.net.compile(backend=BACKEND, mode="serial") as exe:
        found = {k: ag.to_numpy(v) for k, v in exe.run(workload.inputs).items()}
        return workload, found


@pytest.fixture
def executable(name: str, mode: str) -> Iterator[ag.Executable]:
    workload, oracle = built(name)
    inputs = workload.inputs
    with workload.net.compile(backend=BACKEND, mode=mode) as exe:
        for _ in range(3):
            outputs = exe.run(inputs)
        for key, value in oracle.items():
            assert np.array_equal(ag.to_numpy(outputs[key]), value), f"{name}, {mode}: {key}"
        yield exe


@pytest.mark.skipif(
    BACKEND == "cuda" and not has_gpu(), reason="no GPU: a software device is never timed"
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BUILDS)
def test_mode(benchmark: Any, name: str, mode: str, executable: ag.Executable) -> None:
    workload, _ = built(name)
    plan = executable.plan
    benchmark.group = name
    benchmark.extra_info |= {
        "mode": mode, "backend": BACKEND, "sizes": workload.sizes, "steps": len(plan.steps),
        "streams": len(plan.streams), "waits": plan.n_waits,
        "arena_bytes": sum(plan.arena_bytes.values()), "checked": "same bits as serial",
        "commit": commit(), **machine(),
    }  # fmt: skip
    if BACKEND == "cpu" and mode == "serial":
        found = measure_parallelism(executable, workload.inputs)
        benchmark.extra_info |= {"work_ms": found.work_ms, "span_ms": found.span_ms}
    benchmark.pedantic(
        executable.run, args=(workload.inputs,), rounds=15, iterations=1, warmup_rounds=2
    )
