"""Nets of integer kernels whose CPU twins give the same bits."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

import asyncnet_gpu as ag

SIZE = 96

#: The ranges tell the race detector of software devices what a raw pointer covers.
MIX = """
#ifndef SOFTCUDA_EXTENT
#define SOFTCUDA_EXTENT(n)
#endif
extern "C" __global__ void mix(const int* a SOFTCUDA_EXTENT(n), const int* b SOFTCUDA_EXTENT(n),
                               int factor, int n, int* out SOFTCUDA_EXTENT(n)) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = (a[i] * factor + b[i] * 7 + i) % 10007;
}
"""


def mix_cpu(xp: Any, a: Any, b: Any, factor: Any, n: Any, out: Any) -> None:
    """CPU twin of `MIX`; C's remainder has the sign of the dividend."""
    out[...] = xp.fmod(a * factor + b * 7 + xp.arange(n, dtype=np.int32), 10007)


def mix_cupy(xp: Any, a: Any, b: Any, out: Any) -> None:
    """The same through temporaries of the array library."""
    out[...] = (a * 3 + b) % 1009


def mix(net: ag.AsyncNet, a: Any, b: Any, factor: int, **options: Any) -> Any:
    """Add a `MIX` kernel."""
    return net.kernel(
        MIX, "mix", [a, b, np.int32(factor), np.int32(a.shape[0])], out=(a.shape, "int32"),
        grid=-(-a.shape[0] // 32), block=32, cpu=mix_cpu, **options,
    )  # fmt: skip


def diamond() -> ag.AsyncNet:
    """Input, three branches of different length, a barrier, a join."""
    net = ag.AsyncNet("diamond")
    x = net.input("x", (SIZE,), "int32")
    w = net.parameter("w", np.arange(SIZE, dtype=np.int32))
    head = mix(net, x, w, 2, name="head")
    tails = []
    for branch in range(3):
        h = head
        for depth in range(1 + branch):
            h = mix(net, h, x, 3 + depth, name=f"b{branch}_{depth}")
        tails.append(h)
    net.barrier(*tails, name="ready")
    y = mix(net, tails[0], tails[1], 5, name="y")
    net.output(mix(net, y, tails[2], 6, name="z"), y)
    return net


def random_net(seed: int, *, devices: int = 1, nodes: int = 14, calls: bool = True) -> ag.AsyncNet:
    """A random net with branches, views, barriers, in-place updates and, if asked, two devices."""
    rng = random.Random(seed)
    net = ag.AsyncNet(f"random{seed}")
    blobs = [net.input("x", (SIZE,), "int32"), net.input("y", (SIZE,), "int32")]
    state = net.parameter("state", np.arange(SIZE, dtype=np.int32))
    blobs.append(net.parameter("w", np.arange(SIZE, 0, -1).astype(np.int32)))
    for i in range(nodes):
        with net.device(rng.randrange(devices)):
            a, b = rng.choice(blobs[-6:]), rng.choice(blobs)
            kind = rng.random()
            if kind < 0.6:
                blobs.append(mix(net, a, b, rng.randrange(9), name=f"n{i}"))
            elif kind < 0.75 and calls:
                blobs.append(
                    net.call(mix_cupy, a, b, shape=SIZE, dtype="int32", name=f"n{i}")
                )  # fmt: skip
            elif kind < 0.9:
                half = SIZE // 2
                top = net.slice(a, starts=[half], ends=[SIZE], name=f"top{i}")
                low = net.slice(b, starts=[0], ends=[half], name=f"low{i}")
                blobs.append(net.concat(top, low, axis=0, name=f"n{i}"))
            else:
                members = list(
                    {m.name: m for m in rng.sample(blobs[3:], k=min(2, len(blobs) - 3))}.values()
                )
                net.barrier(*members, name=f"n{i}")
    net.assign(state, mix(net, blobs[-1], state, 3, name="next"))
    net.output(*dict.fromkeys(blobs[-3:]), state=state)
    return net


def inputs(seed: int) -> dict[str, np.ndarray]:
    """Values for the inputs of `random_net`."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 1000, SIZE).astype(np.int32) for name in ("x", "y")}
