"""Small nets of different shape: chains, branches, wide and narrow, tiny and large steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import asyncnet_gpu as ag

Made = tuple[ag.AsyncNet, dict[str, Any]]


def _weights(n: int, seed: int) -> np.ndarray[Any, Any]:
    # Orthogonal-like scale: long chains of products neither vanish nor overflow.
    made: np.ndarray[Any, Any] = np.random.default_rng(seed).standard_normal((n, n)) / np.sqrt(n)
    return made.astype(np.float32)


def chain_net(n: int, width: int = 1) -> ag.AsyncNet:
    """`n` relu in a row on `width` elements."""
    net = ag.AsyncNet("chain")
    h = net.input("x", (width,), "float32")
    for i in range(n):
        h = net.relu(h, name=f"r{i}")
    net.output(h)
    return net


def two_matmul_chains(length: int, n: int) -> tuple[ag.AsyncNet, np.ndarray[Any, Any]]:
    """Two independent chains of `length` n x n products from one input."""
    net = ag.AsyncNet("two_chains")
    x = net.input("x", (n, n), "float32")
    for side in "ab":
        h = x
        w = net.parameter(f"w{side}", _weights(n, ord(side)))
        for i in range(length):
            h = net.matmul(h, w, name=f"{side}{i}")
        net.output(h)
    return net, _weights(n, 0)


def branches(n_branches: int, length: int, shape: tuple[int, ...]) -> Made:
    """Branches of elementwise steps over one input, summed at the end."""
    net = ag.AsyncNet("branches")
    x = net.input("x", shape, "float32")
    ends = []
    for b in range(n_branches):
        h = x
        for i in range(length):
            h = net.sigmoid(h, name=f"b{b}.{i}")
        ends.append(h)
    total = ends[0]
    for end in ends[1:]:
        total = net.add(total, end)
    net.output(total)
    return net, {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}


def towers(n_towers: int, depth: int, batch: int, n: int) -> Made:
    """Dense towers (product, relu) over one input, concatenated."""
    net = ag.AsyncNet("towers")
    x = net.input("x", (batch, n), "float32")
    ends = []
    for t in range(n_towers):
        h = x
        for d in range(depth):
            w = net.parameter(f"w{t}.{d}", _weights(n, 10 * t + d))
            h = net.relu(net.matmul(h, w))
        ends.append(h)
    net.output(net.concat(*ends, axis=1, name="y") if len(ends) > 1 else ends[0])
    return net, {"x": np.random.default_rng(2).standard_normal((batch, n)).astype(np.float32)}


def _chain(n: int, width: int) -> Made:
    return chain_net(n, width), {"x": np.ones(width, np.float32)}


def _two_chains(length: int, n: int) -> Made:
    net, x = two_matmul_chains(length, n)
    return net, {"x": x}


def diamond_ladder(rungs: int, shape: tuple[int, ...]) -> Made:
    """Fork, two steps, join, again and again: many hand-overs for little work."""
    net = ag.AsyncNet("ladder")
    h = net.input("x", shape, "float32")
    for _ in range(rungs):
        h = net.add(net.sigmoid(h), net.tanh(h))
    net.output(h)
    return net, {"x": np.random.default_rng(3).standard_normal(shape).astype(np.float32)}


#: Ten nets for ``auto``: name to a function that makes net and inputs.
TEN_NETS: dict[str, Callable[[], Made]] = {
    "chain 200 x 1": lambda: _chain(200, 1),
    "chain 50 x 1M": lambda: _chain(50, 1 << 20),
    "branches 4 x 10, tiny": lambda: branches(4, 10, (16,)),
    "branches 2 x 4, 1M": lambda: branches(2, 4, (1 << 20,)),
    "branches 8 x 3, 64k": lambda: branches(8, 3, (1 << 16,)),
    "two products 6 x 512": lambda: _two_chains(6, 512),
    "towers 2 x 3, 64 x 256": lambda: towers(2, 3, 64, 256),
    "towers 6 x 2, 32 x 512": lambda: towers(6, 2, 32, 512),
    "ladder 30, tiny": lambda: diamond_ladder(30, (64,)),
    "ladder 6, 512k": lambda: diamond_ladder(6, (1 << 19,)),
}
