"""k requests in flight: throughput and latency of one net with k slots, closed loop.

A client keeps k requests in flight; latency runs from ``submit`` to the result. The numbers of
slots take turns in blocks, so that drift of the machine hits all alike.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

import asyncnet_gpu as ag

from ..harness import pinned_threads
from ..nets.small import towers
from .measure import Options, Row

IN_FLIGHT = (1, 2, 4, 8)
N_REQUESTS = 60


def closed_loop(
    exe: ag.Executable, inputs: Mapping[str, Any], k: int, n_requests: int
) -> tuple[float, list[float]]:
    """Return seconds for all requests, and the latency of each in seconds."""
    flying: deque[tuple[float, ag.Run]] = deque()
    latencies = []
    start = time.perf_counter()
    for _ in range(n_requests):
        if len(flying) == k:
            begun, run = flying.popleft()
            run.result()
            latencies.append(time.perf_counter() - begun)
        flying.append((time.perf_counter(), exe.submit(inputs)))
    while flying:
        begun, run = flying.popleft()
        run.result()
        latencies.append(time.perf_counter() - begun)
    return time.perf_counter() - start, latencies


def measure_requests(options: Options) -> list[Row]:
    """Return a row for each number of requests in flight, in serial and streams mode."""
    net, inputs = towers(2, 4, 32, max(64, int(384 * options.scale)))
    rows: list[Row] = []
    with ExitStack() as stack:
        exes = {
            (mode, k): stack.enter_context(net.compile(backend=options.backend, mode=mode, slots=k))
            for mode in ("serial", "streams")
            for k in IN_FLIGHT
        }
        oracle = exes["serial", 1].run(inputs)["y"]
        for (mode, k), exe in exes.items():
            for run in [exe.submit(inputs) for _ in range(2 * k)]:
                same = np.array_equal(ag.to_numpy(run.result()["y"]), ag.to_numpy(oracle))
                if not same:
                    raise AssertionError(f"[bench requests] {mode}, {k} in flight: other bits")
        rates: dict[tuple[str, int], list[float]] = {key: [] for key in exes}
        waits: dict[tuple[str, int], list[float]] = {key: [] for key in exes}
        if options.pin:
            stack.enter_context(pinned_threads(by_stream=False))
        for _ in range(options.rounds or 15):
            for key, exe in exes.items():
                seconds, latencies = closed_loop(exe, inputs, key[1], N_REQUESTS)
                rates[key].append(N_REQUESTS / seconds)
                waits[key] += latencies
        for (mode, k), found in rates.items():
            row: Row = {"mode": mode, "in_flight": k, "checked": "same bits"}
            if not options.host_only:
                row |= _numbers(found, rates["serial", 1], waits[mode, k])
            rows.append(row)
    return rows


def _numbers(rates: list[float], base: list[float], latencies_s: list[float]) -> Row:
    percent = statistics.quantiles(latencies_s, n=100)
    return {
        "requests_per_s": statistics.median(rates),
        "over_one": statistics.median(a / b for a, b in zip(rates, base, strict=True)),
        "latency_p50_ms": 1e3 * percent[49],
        "latency_p95_ms": 1e3 * percent[94],
        "latency_p99_ms": 1e3 * percent[98],
    }
