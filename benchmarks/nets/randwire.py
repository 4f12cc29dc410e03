"""RandWire (Xie et al., 2019): a random small-world graph of separable convolutions.

Node: weighted sum of its inputs, relu, 3 x 3 depthwise and 1 x 1 convolution. The graph is
Watts-Strogatz WS(n, 4, 0.75), directed from lower to higher index, made here from a seed (networkx'
``connected_watts_strogatz_graph`` is the same model; having it is not needed).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import asyncnet_gpu as ag

from .plain import conv2d
from .workload import Workload, normal, scaled, uniform

N_NODES, NEIGHBOURS, REWIRED, SEED = 20, 4, 0.75, 7
CHANNELS = 48


def small_world(n: int, k: int, p: float, seed: int) -> list[list[int]]:
    """Return the predecessors of each node of a Watts-Strogatz graph, directed by index."""
    rng = random.Random(seed)
    edges = set()
    for step in range(1, k // 2 + 1):
        for node in range(n):
            other = (node + step) % n
            if rng.random() < p:
                other = rng.choice([m for m in range(n) if m != node])
            edges.add((min(node, other), max(node, other)))
    return [sorted(a for a, b in edges if b == node) for node in range(n)]


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    graph = small_world(N_NODES, NEIGHBOURS, REWIRED, SEED)
    made: list[Any] = []
    for node, before in enumerate(graph):
        h = made[before[0]] if before else a["x"]
        for other in before[1:]:
            h = h + made[other]
        h = conv2d(xp, xp.maximum(h, 0), a[f"n{node}.deep"], pads=1, groups=CHANNELS)
        made.append(conv2d(xp, h, a[f"n{node}.point"]))
    used = {p for before in graph for p in before}
    ends = [h for node, h in enumerate(made) if node not in used]
    total = ends[0]
    for end in ends[1:]:
        total = total + end
    return {"y": total.mean(axis=(2, 3), keepdims=True)}


def build(scale: float = 1.0) -> Workload:
    side = scaled(28, scale, root=2)
    graph = small_world(N_NODES, NEIGHBOURS, REWIRED, SEED)
    net = ag.AsyncNet("randwire")
    x = net.input("x", (1, CHANNELS, side, side))
    made: list[ag.Blob] = []
    for node, before in enumerate(graph):
        h = made[before[0]] if before else x
        for other in before[1:]:
            h = net.add(h, made[other])
        deep = net.parameter(f"n{node}.deep", normal(node, CHANNELS, 1, 3, 3, size=0.4))
        point = net.parameter(
            f"n{node}.point", normal(100 + node, CHANNELS, CHANNELS, 1, 1, size=0.12)
        )
        h = net.conv2d(net.relu(h), deep, pads=1, groups=CHANNELS, name=f"n{node}.d")
        made.append(net.conv2d(h, point, name=f"n{node}.p"))
    used = {p for before in graph for p in before}
    ends = [h for node, h in enumerate(made) if node not in used]
    total = ends[0]
    for end in ends[1:]:
        total = net.add(total, end)
    net.output(net.global_average_pool(total, name="y"))
    hand = tuple(f"n{node}." for node in range(1, N_NODES, 2))
    return Workload(
        "RandWire", net, {"x": uniform(1, 1, CHANNELS, side, side)}, plain, hand=hand, rtol=1e-3,
        atol=1e-3, sizes=f"WS({N_NODES}, {NEIGHBOURS}, {REWIRED}), {CHANNELS} channels, "
        f"{side} x {side}",
    )  # fmt: skip
