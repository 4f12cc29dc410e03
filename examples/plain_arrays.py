# Run with:  python examples/plain_arrays.py [--backend cpu|cuda]
"""Five array expressions as a net: independent ones overlap, dependent ones wait, by themselves."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import asyncnet_gpu as ag

ROWS, COLUMNS = 512, 512


def make_net() -> ag.AsyncNet:
    """Return ``y = relu(x @ a) + tanh(x @ b)``: two branches that share only their input."""
    rng = np.random.default_rng(0)
    net = ag.AsyncNet("two_branches")
    x = net.input("x", (ROWS, COLUMNS), "float32")
    a = net.parameter("a", rng.standard_normal((COLUMNS, COLUMNS), dtype=np.float32))
    b = net.parameter("b", rng.standard_normal((COLUMNS, COLUMNS), dtype=np.float32))
    left = net.relu(net.matmul(x, a, name="x_a"), name="left")
    right = net.tanh(net.matmul(x, b, name="x_b"), name="right")
    net.output(net.add(left, right, name="y"))
    return net


def main(backend: str = "cpu") -> dict[str, Any]:
    """Run the net on streams and compare it with the same five lines of NumPy."""
    x = np.random.default_rng(1).standard_normal((ROWS, COLUMNS), dtype=np.float32)
    with make_net().compile(backend=backend, mode="streams") as exe:
        y = ag.to_numpy(exe.run(x=x)["y"])
        print(exe.plan.describe())
        print(exe.plan.explain("x_a", "x_b"))
        print(exe.plan.explain("x_a", "y"))
        a, b = exe.get_parameter("a"), exe.get_parameter("b")
    np.testing.assert_allclose(y, np.maximum(x @ a, 0) + np.tanh(x @ b), rtol=1e-4, atol=1e-3)
    return {"x": x, "a": a, "b": b, "y": y}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    main(parser.parse_args().backend)
