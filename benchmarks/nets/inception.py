"""An inception block (Szegedy et al., 2016, figure 5): four branches, concatenated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncnet_gpu as ag

from .plain import conv2d, pool
from .workload import Workload, normal, scaled, uniform

C_IN = 192
#: Branch to its convolutions: (channels, kernel). Branch d pools first.
BRANCHES = {"a": ((64, 1),), "b": ((48, 1), (64, 5)), "c": ((64, 1), (96, 3), (96, 3)),
            "d": ((32, 1),)}  # fmt: skip


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    ends = []
    for branch, layers in BRANCHES.items():
        h = a["x"]
        if branch == "d":
            h = pool(xp, h, kernel=3, strides=1, pads=1, largest=False, count_include_pad=True)
        for i, (_, kernel) in enumerate(layers):
            w, b = a[f"{branch}{i}.w"], a[f"{branch}{i}.b"]
            h = xp.maximum(conv2d(xp, h, w, b, pads=kernel // 2), 0)
        ends.append(h)
    return {"y": xp.concatenate(ends, axis=1)}


def build(scale: float = 1.0) -> Workload:
    side = scaled(35, scale, root=2)
    net = ag.AsyncNet("inception")
    x = net.input("x", (1, C_IN, side, side))
    ends = []
    for branch, layers in BRANCHES.items():
        h, channels = x, C_IN
        if branch == "d":
            h = net.average_pool(
                h, kernel=3, strides=1, pads=1, count_include_pad=True, name="d.pool"
            )
        for i, (width, kernel) in enumerate(layers):
            shape = (width, channels, kernel, kernel)
            size = (2 / (channels * kernel * kernel)) ** 0.5
            w = net.parameter(f"{branch}{i}.w", normal(ord(branch) + i, *shape, size=size))
            b = net.parameter(f"{branch}{i}.b", normal(i, width, size=0.1))
            h = net.conv2d(h, w, b, pads=kernel // 2, name=f"{branch}{i}")
            h, channels = net.relu(h, name=f"{branch}{i}.relu"), width
        ends.append(h)
    net.output(net.concat(*ends, axis=1, name="y"))
    return Workload(
        "inception block", net, {"x": uniform(1, 1, C_IN, side, side)}, plain,
        hand=("b", "c", "d"), rtol=1e-3, atol=1e-4, sizes=f"{C_IN} channels, {side} x {side}",
    )  # fmt: skip
