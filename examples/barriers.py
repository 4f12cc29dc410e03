# Run with:  python examples/barriers.py [--backend cpu|cuda]
"""A barrier orders without computing; the host may act when a run has passed it."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import asyncnet_gpu as ag

N = 256


def make_net() -> tuple[ag.AsyncNet, ag.AsyncNetBarrier]:
    """Return two phases: everything of the first comes before anything of the second."""
    net = ag.AsyncNet("two_phases")
    x = net.input("x", (N, N), "float32")
    # The first phase: two independent branches.
    low = net.minimum(x, 0.0, name="low")
    high = net.maximum(x, 0.0, name="high")
    measured = net.barrier(low, high, name="measured")
    # The second: each line reads one branch only, and starts when both are there.
    first = net.softmax(low, axis=1, name="first")
    second = net.softmax(high, axis=1, name="second")
    net.output(net.sub(first, second, name="y"))
    return net, measured


def main(backend: str = "cpu") -> dict[str, Any]:
    """Wait for the barrier on the host while the run goes on, then for the run."""
    net, measured = make_net()
    x = np.random.default_rng(0).standard_normal((N, N), dtype=np.float32)
    with net.compile(backend=backend, mode="streams", allocator="exact") as exe:
        run = exe.submit(x=x)
        measured.wait(run, timeout_s=10)
        print("both branches of the first phase are done; the second is under way or over")
        y = ag.to_numpy(run.result(timeout_s=10)["y"])
        why = exe.plan.explain("low", "second")
        print(exe.plan.describe())
        print(why)
    return {"x": x, "y": y, "why": why, "reached": measured.reached(run)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    main(parser.parse_args().backend)
