# Run with:  python examples/own_kernel.py [--backend cpu|cuda]
"""Your own CUDA kernel as an operator, with a twin that runs where there is no GPU."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import asyncnet_gpu as ag

N = 100_000
THREADS = 256

SOURCE = r"""
extern "C" __global__ void logistic_map(const float* x, float rate, int steps, int n, float* out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float value = x[i];
    for (int step = 0; step < steps; ++step) value = rate * value * (1.0f - value);
    out[i] = value;
}
"""


def logistic_map(xp: Any, x: Any, rate: Any, steps: Any, n: Any, out: Any) -> None:
    """Do what the kernel does, with the same arguments; `xp` is NumPy."""
    out[...] = x
    for _ in range(int(steps)):
        xp.multiply(rate * out, 1 - out, out=out)


def make_net() -> ag.AsyncNet:
    """Return two populations, below and above the onset of chaos, side by side."""
    net = ag.AsyncNet("populations")
    x = net.input("x", (N,), "float32")
    grid = (N + THREADS - 1) // THREADS
    for name, rate in (("calm", 2.8), ("wild", 3.5)):
        made = net.kernel(
            SOURCE, "logistic_map", [x, np.float32(rate), np.int32(20), np.int32(N)],
            out=((N,), "float32"), grid=grid, block=THREADS, cpu=logistic_map, name=name,
        )  # fmt: skip
        net.output(made)
    return net


def main(backend: str = "cpu") -> dict[str, Any]:
    """Run both populations at a time; the calm one settles at 1 - 1 / rate."""
    x = np.linspace(0.1, 0.9, N, dtype=np.float32)
    with make_net().compile(backend=backend, mode="streams") as exe:
        found = {name: ag.to_numpy(value) for name, value in exe.run(x=x).items()}
        print(f"{exe}")
    print(f"calm settles at {found['calm'].mean():.4f} (theory {1 - 1 / 2.8:.4f})")
    print(f"wild spreads from {found['wild'].min():.3f} to {found['wild'].max():.3f}")
    return {"x": x, **found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    main(parser.parse_args().backend)
