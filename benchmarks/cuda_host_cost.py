"""What a step costs the host on CUDA: a chain of one-element kernels, where nothing else counts.

python -m benchmarks.cuda_host_cost [--save]

Against the loop of ``cupy.maximum(x, 0, out=o)``, everything waited for. Devices without a GPU
behind them do: what is measured is the host's work. Let them execute nothing, if they can. On a GPU
the kernels take time of their own, one after the other, and the goals do not apply.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

import asyncnet_gpu as ag
from benchmarks.harness import has_gpu, interleave, paired_ratio, save
from benchmarks.nets.small import chain_net

#: Largest ratios promised.
GOALS = {"streams": 0.2, "graph": 0.05}
N_STEPS = 1000


def one_by_one(net: ag.AsyncNet) -> ag.Executable:
    """Compile for streams without segments: every launch is a call of the driver's."""
    with mock.patch("asyncnet_gpu.backends.cuda.program.make_segments", return_value=[]):
        return net.compile(backend="cuda", mode="streams")


def measure(backend: str = "cuda", *, rounds: int = 60) -> dict[str, Any]:
    """Measure all modes against the loop; returns ratios and microseconds a step."""
    import cupy

    if backend != "cuda":
        raise ValueError(f"[cuda_host_cost] expected backend cuda, got {backend!r}")
    x, out = cupy.ones(1, np.float32), cupy.empty(1, np.float32)

    def bare() -> None:
        for _ in range(N_STEPS):
            cupy.maximum(x, 0, out=out)
        cupy.cuda.get_current_stream().synchronize()

    net = chain_net(N_STEPS)
    exes = {m: net.compile(backend="cuda", mode=m) for m in ("serial", "streams", "graph")}
    exes["one by one"] = one_by_one(net)
    candidates: dict[str, Callable[[], object]] = {"bare": bare}
    candidates |= {name: (lambda e=e: e.run(x=x)) for name, e in exes.items()}
    timings = interleave(candidates, rounds=rounds)
    for exe in exes.values():
        exe.close()
    ratios = {name: paired_ratio(timings, name, "bare") for name in exes}
    quiet = {name: timings[name].fastest_s / timings["bare"].fastest_s for name in exes}
    step_us = {name: 1e6 * t.fastest_s / N_STEPS for name, t in timings.items()}
    kind = "" if has_gpu() else "; host cost only, there is no GPU behind the CUDA devices"
    print(f"chain of {N_STEPS:,} one-element relu, {rounds} rounds in turn{kind}")
    print(
        f"  bare loop      {1e6 * timings['bare'].median_s:8.0f} us, {step_us['bare']:.3f} a step"
    )
    for name in exes:
        goal = f" (goal <= {GOALS[name]})" if name in GOALS and not has_gpu() else ""
        print(
            f"  {name:14} {1e6 * timings[name].median_s:8.0f} us, {step_us[name]:.3f} a step, "
            f"ratio {ratios[name]:.4f}, of the quietest rounds {quiet[name]:.4f}{goal}"
        )
    return {
        "host_cost_only": not has_gpu(), "n_steps": N_STEPS, "over_bare": ratios,
        "over_bare_quietest": quiet, "fastest_us_per_step": step_us,
        "complaints": [
            f"{name}: {ratios[name]:.3f} > {goal}"
            for name, goal in GOALS.items() if ratios[name] > goal and not has_gpu()
        ],
    }  # fmt: skip


if __name__ == "__main__":
    result = measure()
    if "--save" in sys.argv[1:]:
        print(f"written to {save('cuda_host_cost', result).name}")
