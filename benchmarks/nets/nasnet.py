"""A stack of NASNet-A normal cells (Zoph et al., 2018, figure 4), without batch normalisation.

A cell joins the outputs of the two cells before it in five sums of two operators each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncnet_gpu as ag

from .plain import conv2d, pool
from .workload import Workload, normal, scaled, uniform

N_CELLS, CHANNELS = 3, 32
#: Five sums: (operator, which input) twice; input 0 is the cell before, 1 the one before that.
SUMS = (
    (("sep3", 0), ("identity", 0)),
    (("sep3", 1), ("sep5", 0)),
    (("pool", 0), ("identity", 1)),
    (("pool", 1), ("pool", 1)),
    (("sep5", 1), ("sep3", 1)),
)


def _plain_cell(xp: Any, a: Mapping[str, Any], name: str, before: list[Any]) -> Any:
    squeezed = [conv2d(xp, xp.maximum(h, 0), a[f"{name}.in{i}.w"]) for i, h in enumerate(before)]
    sums = []
    for s, terms in enumerate(SUMS):
        made = []
        for t, (kind, which) in enumerate(terms):
            h = squeezed[which]
            if kind == "pool":
                h = pool(xp, h, kernel=3, strides=1, pads=1, largest=False)
            elif kind != "identity":
                deep, point = a[f"{name}.{s}{t}.deep"], a[f"{name}.{s}{t}.point"]
                h = conv2d(xp, xp.maximum(h, 0), deep, pads=deep.shape[2] // 2, groups=CHANNELS)
                h = conv2d(xp, h, point)
            made.append(h)
        sums.append(made[0] + made[1])
    return xp.concatenate(sums, axis=1)


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    before = [a["x"], a["x"]]
    for cell in range(N_CELLS):
        before = [_plain_cell(xp, a, f"cell{cell}", before), before[0]]
    return {"y": before[0].mean(axis=(2, 3), keepdims=True)}


def _separable(net: ag.AsyncNet, h: ag.Blob, kernel: int, name: str, seed: int) -> ag.Blob:
    deep = net.parameter(
        f"{name}.deep", normal(seed, CHANNELS, 1, kernel, kernel, size=1.4 / kernel)
    )
    point = net.parameter(f"{name}.point", normal(seed + 1, CHANNELS, CHANNELS, 1, 1, size=0.2))
    h = net.conv2d(net.relu(h, name=f"{name}.relu"), deep, pads=kernel // 2, groups=CHANNELS,
                   name=f"{name}.d")  # fmt: skip
    made: ag.Blob = net.conv2d(h, point, name=f"{name}.p")
    return made


def _cell(net: ag.AsyncNet, name: str, before: list[ag.Blob], seed: int) -> ag.Blob:
    squeezed = []
    for i, h in enumerate(before):
        channels = h.shape[1]
        w = normal(seed + i, CHANNELS, channels, 1, 1, size=(2 / channels) ** 0.5)
        h = net.relu(h, name=f"{name}.in{i}.relu")
        squeezed.append(net.conv2d(h, net.parameter(f"{name}.in{i}.w", w), name=f"{name}.in{i}"))
    sums = []
    for s, terms in enumerate(SUMS):
        made = []
        for t, (kind, which) in enumerate(terms):
            h, label = squeezed[which], f"{name}.{s}{t}"
            if kind == "pool":
                h = net.average_pool(h, kernel=3, strides=1, pads=1, name=label)
            elif kind != "identity":
                h = _separable(net, h, int(kind[-1]), label, seed + 10 * s + 2 * t + 5)
            made.append(h)
        sums.append(net.add(*made, name=f"{name}.{s}"))
    out: ag.Blob = net.concat(*sums, axis=1, name=name)
    return out


def build(scale: float = 1.0) -> Workload:
    side = scaled(28, scale, root=2)
    net = ag.AsyncNet("nasnet")
    x = net.input("x", (1, CHANNELS, side, side))
    before = [x, x]
    for cell in range(N_CELLS):
        before = [_cell(net, f"cell{cell}", before, 100 * cell), before[0]]
    net.output(net.global_average_pool(before[0], name="y"))
    hand = tuple(f"cell{c}.{s}" for c in range(N_CELLS) for s in range(1, len(SUMS)))
    return Workload(
        "NASNet cells", net, {"x": uniform(1, 1, CHANNELS, side, side)}, plain, hand=hand,
        rtol=1e-3, atol=1e-4, sizes=f"{N_CELLS} cells, {CHANNELS} channels, {side} x {side}",
    )  # fmt: skip
