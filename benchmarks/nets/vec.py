"""VEC of the GrCUDA suite: the sum of x² − y², the squares side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncnet_gpu as ag

from .workload import Workload, scaled, uniform


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    return {"total": xp.sum(xp.square(a["x"]) - xp.square(a["y"]))}


def build(scale: float = 1.0) -> Workload:
    n = scaled(1 << 22, scale)
    net = ag.AsyncNet("VEC")
    x, y = net.input("x", (n,)), net.input("y", (n,))
    squares = net.square(x, name="one"), net.square(y, name="two")
    net.output(net.reduce_sum(net.sub(*squares), name="total"))
    return Workload(
        "VEC", net, {"x": uniform(1, n), "y": uniform(2, n)}, plain, hand=("two",),
        rtol=1e-3, atol=1e-6 * n, sizes=f"n = {n:,} float32",
    )  # fmt: skip
