"""METG(50 %): the smallest task for which half of the machine's rate is reached.

Efficiency of a grid is (times of its tasks, each alone, added up) / (cores x time of the grid).
With ever smaller tasks overhead takes over and efficiency falls; METG is the task time, cores x
time of the grid / tasks, where it passes one half. Slaughter et al., "Task Bench", SC 2020,
section 4.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from asyncnet_gpu.backends.cpu.cores import usable_cores

from ..harness import interleave, pinned_threads
from ..nets.taskbench import build, task, tasks_by_inputs
from .measure import Options, Row

#: ``measure(n) -> (efficiency, granularity in seconds)`` for tasks of n elements.
Measure = Callable[[int], tuple[float, float]]

_LARGEST = 1 << 18
_SMALLEST = 16


def find_metg(
    measure: Measure, *, target: float = 0.5, largest: int = _LARGEST, smallest: int = _SMALLEST
) -> float | None:
    """Return the granularity in seconds at which efficiency passes `target`, falling.

    Tasks are halved until efficiency is below the target; between the last two sizes the crossing
    is interpolated in the logarithm of the granularity. None if even the largest tasks do not reach
    the target.
    """
    n = largest
    efficiency, granularity = measure(n)
    if efficiency < target:
        return None
    while n > smallest:
        n //= 2
        lower, smaller = measure(n)
        if lower < target:
            share = (efficiency - target) / (efficiency - lower)
            return math.exp(
                math.log(granularity) + share * (math.log(smaller) - math.log(granularity))
            )
        efficiency, granularity = lower, smaller
    return granularity


def one_task_s(n: int, n_inputs: int = 1) -> float:
    """Seconds of one task alone, best of many: what the machine can do without a schedule."""
    arrays, out = [np.ones(n) for _ in range(n_inputs)], np.empty(n)
    best = math.inf
    for _ in range(30):
        start = time.perf_counter()
        task(np, *arrays, out=out)
        best = min(best, time.perf_counter() - start)
    return best


def one_task_on_device_s(n: int, n_inputs: int = 1, repeats: int = 30) -> float:
    """Seconds of one task of many on one stream, by events: launches overlap with execution."""
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        arrays, out = [cupy.ones(n) for _ in range(n_inputs)], cupy.empty(n)
        task(cupy, *arrays, out=out)
        first = stream.record(cupy.cuda.Event())
        for _ in range(repeats):
            task(cupy, *arrays, out=out)
        last = stream.record(cupy.cuda.Event())
    last.synchronize()
    return 1e-3 * float(cupy.cuda.get_elapsed_time(first, last)) / repeats


def measure_metg(pattern: str, options: Options, mode: str) -> Row:
    """Find METG(50 %) of a pattern in a mode, on as many cores as the mode can use.

    A GPU counts as one: its rate is that of a single stream that is never empty.
    """
    on_cpu = options.backend == "cpu"
    cores = usable_cores() if on_cpu and mode != "serial" else 1
    alone_s = one_task_s if on_cpu else one_task_on_device_s
    kinds = tasks_by_inputs(pattern)
    n_tasks = sum(kinds.values())
    tried: list[dict[str, Any]] = []

    def at(n: int) -> tuple[float, float]:
        workload = build(1.0, pattern, n)
        with workload.net.compile(backend=options.backend, mode=mode, blas_threads=1) as exe:
            exe.run(workload.inputs)
            with pinned_threads() if options.pin else nullcontext():
                timings = interleave(
                    {"grid": lambda: exe.run(workload.inputs)}, rounds=options.rounds or 9
                )
                useful_s = sum(count * alone_s(n, k) for k, count in kinds.items())
        wall_s = min(timings["grid"].seconds)
        efficiency, granularity_s = useful_s / (cores * wall_s), cores * wall_s / n_tasks
        tried.append({"n": n, "efficiency": efficiency, "task_us": 1e6 * granularity_s})
        return efficiency, granularity_s

    found = find_metg(at)
    return {
        "pattern": pattern, "mode": mode, "cores": cores, "tried": tried,
        "metg_us": None if found is None else 1e6 * found,
    }  # fmt: skip
