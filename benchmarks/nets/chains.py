"""Launch-bound nets: steps so small that only their overhead counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncnet_gpu as ag

from .workload import Workload, scaled, uniform


def _tower(xp: Any, h: Any, length: int) -> Any:
    for i in range(length):
        h = xp.maximum(h, 0) if i % 2 else xp.tanh(h)
    return h


def chain(scale: float = 1.0) -> Workload:
    """One chain of one-element steps: nothing to overlap."""
    length = scaled(1000, scale)
    net = ag.AsyncNet("chain")
    h = net.input("x", (1,))
    for i in range(length):
        h = net.relu(h, name=f"r{i}") if i % 2 else net.tanh(h, name=f"t{i}")
    net.output(y=h)

    def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": _tower(xp, a["x"], length)}

    return Workload(
        "chain", net, {"x": uniform(1, 1)}, plain, control=True, sizes=f"{length:,} steps",
    )  # fmt: skip


def eight_chains(scale: float = 1.0) -> Workload:
    """Eight independent chains of small steps: streams cost more than they bring on threads."""
    length = scaled(50, scale)
    net = ag.AsyncNet("eight chains")
    x = net.input("x", (64,))
    total: Any = None
    for c in range(8):
        h = x
        for i in range(length):
            h = net.relu(h, name=f"c{c}.{i}") if i % 2 else net.tanh(h, name=f"c{c}.{i}")
        total = h if total is None else net.add(total, h)
    net.output(y=total)

    def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
        total = _tower(xp, a["x"], length)
        for _ in range(7):
            total = total + _tower(xp, a["x"], length)
        return {"y": total}

    return Workload(
        "eight chains", net, {"x": uniform(1, 64)}, plain,
        hand=tuple(f"c{c}." for c in range(1, 8)), control=True,
        sizes=f"8 x {length} steps of 64 elements",
    )  # fmt: skip
