# Run with:  python examples/several_devices.py [--backend cpu|cuda]
"""Half of the work on each of two devices; copies and waits between them come by themselves."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import asyncnet_gpu as ag

N = 512


def make_net() -> ag.AsyncNet:
    """Return ``total = sin(x) @ w`` on device 0 plus ``cos(x) @ w`` on device 1."""
    net = ag.AsyncNet("two_devices")
    x = net.input("x", (N, N), "float32")
    w = net.parameter("w", np.full((N, N), 1 / N, np.float32))
    with net.device(0):
        first = net.matmul(net.sin(x), w, name="first")
    with net.device(1):  # x and w are copied there, once each
        second = net.matmul(net.cos(x), w, name="second")
    with net.device(0):  # second comes back
        net.output(net.add(first, second, name="total"))
    return net


def main(backend: str = "cpu", devices: list[int] | None = None) -> dict[str, Any]:
    """Run on logical devices 0 and 1; `devices` says which physical ones they are."""
    x = np.random.default_rng(0).standard_normal((N, N), dtype=np.float32)
    with make_net().compile(backend=backend, mode="streams", devices=devices) as exe:
        total = ag.to_numpy(exe.run(x=x)["total"])
        print(exe.plan.describe())
    expected = (np.sin(x) + np.cos(x)).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(total, np.broadcast_to(expected, (N, N)), rtol=1e-4, atol=1e-5)
    return {"x": x, "total": total}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--fold", action="store_true", help="both devices on the first one")
    arguments = parser.parse_args()
    main(arguments.backend, [0, 0] if arguments.fold else None)
