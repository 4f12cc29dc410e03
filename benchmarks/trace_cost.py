"""What tracing costs: runs with and without it take turns.

python -m benchmarks.trace_cost [--backend cpu|cuda] [--rounds N] [--save]

A net of steps of about a millisecond (the goal: below 5 %), in one stream and in several, and a
chain of steps of next to nothing, which shows the price of one traced step. Plain runs against
plain runs of the same turns show what the machine does to any ratio. Without a GPU behind
the CUDA devices only the time of the host means anything, and the output says so.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

import asyncnet_gpu as ag
from benchmarks.harness import Timing, has_gpu, interleave, paired_ratio, save
from benchmarks.nets.small import chain_net, two_matmul_chains

#: Of a turn: one trace holds them all.
RUNS = 5


def millisecond_net() -> tuple[ag.AsyncNet, dict[str, Any]]:
    """Two chains of products, each of about a millisecond on one core."""
    net, x = two_matmul_chains(3, 424)
    return net, {"x": x}


def tiny_net() -> tuple[ag.AsyncNet, dict[str, Any]]:
    return chain_net(500), {"x": np.ones(1, np.float32)}


def compare(
    net: ag.AsyncNet, inputs: dict[str, Any], backend: str, mode: str, rounds: int
) -> dict[str, Any]:
    with net.compile(backend=backend, mode=mode) as exe:

        def plain() -> None:
            for _ in range(RUNS):
                exe.run(inputs)

        def traced() -> None:
            with exe.trace():
                plain()

        candidates: dict[str, Callable[[], object]] = {
            "plain": plain, "traced": traced, "again": plain,
        }  # fmt: skip
        timings = interleave(candidates, rounds=rounds)
        n_steps = len(exe.plan.steps)
    return {
        "net": net.name, "mode": mode, "steps": n_steps,
        "step_us": 1e6 * timings["plain"].fastest_s / n_steps / RUNS,
        "ratio_paired": paired_ratio(timings, "traced", "plain"),
        "ratio_of_nothing": paired_ratio(timings, "again", "plain"),
        "ratio_fastest": timings["traced"].fastest_s / timings["plain"].fastest_s,
        "us_per_step": 1e6 * _difference(timings["traced"], timings["plain"]) / n_steps / RUNS,
    }  # fmt: skip


def _difference(top: Timing, bottom: Timing) -> float:
    pairs = zip(top.seconds, bottom.seconds, strict=True)
    return statistics.median(a - b for a, b in pairs)


def measure(backend: str, rounds: int = 60) -> dict[str, Any]:
    """Print and return the ratios of both nets, in one stream and in several."""
    only_host = backend == "cuda" and not has_gpu()
    if only_host:
        print("no GPU behind the CUDA devices: what follows is time of the host, nothing else")
    rows = []
    for make in (millisecond_net, tiny_net):
        net, inputs = make()
        for mode in ("serial", "streams"):
            row = compare(net, inputs, backend, mode, rounds)
            rows.append(row)
            print(
                f"{row['net']:>12} {row['mode']:8} {row['steps']:4} steps of {row['step_us']:7.1f} "
                f"us: traced / plain {row['ratio_paired']:.3f}, plain / plain "
                f"{row['ratio_of_nothing']:.3f} (medians of pairs), fastest "
                f"{row['ratio_fastest']:.3f}; {row['us_per_step']:.2f} us a step"
            )
    return {"backend": backend, "host_only": only_host, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description="What tracing costs.")
    parser.add_argument("--backend", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    result = measure(options.backend, options.rounds)
    if options.save:
        print(save(f"trace_cost_{options.backend}", result))


if __name__ == "__main__":
    main()
