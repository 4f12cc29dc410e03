"""DL of the GrCUDA suite: two towers of convolutions over two pictures, joined by a dense layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncnet_gpu as ag

from .plain import conv2d, pool
from .workload import Workload, normal, scaled, uniform

CHANNELS = (1, 8, 16)
N_OUT = 10


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    features = []
    for tower in "ab":
        h = a[f"image_{tower}"]
        h = xp.maximum(conv2d(xp, h, a[f"{tower}.w0"], strides=2, pads=1), 0)
        h = pool(xp, h, kernel=5, strides=5, largest=False)
        h = xp.maximum(conv2d(xp, h, a[f"{tower}.w1"], strides=2, pads=1), 0)
        features.append(h.mean(axis=(2, 3)))
    return {"y": xp.concatenate(features, axis=1) @ a["dense"]}


def build(scale: float = 1.0) -> Workload:
    side = scaled(1000, scale, root=2, multiple=20)
    net = ag.AsyncNet("DL")
    features = []
    for seed, tower in enumerate("ab"):
        h = net.input(f"image_{tower}", (1, 1, side, side))
        for layer in range(2):
            shape = (CHANNELS[layer + 1], CHANNELS[layer], 3, 3)
            w = net.parameter(f"{tower}.w{layer}", normal(10 * seed + layer, *shape, size=0.3))
            h = net.relu(net.conv2d(h, w, strides=2, pads=1, name=f"{tower}.conv{layer}"))
            if layer == 0:
                h = net.average_pool(h, kernel=5, strides=5, name=f"{tower}.pool")
        features.append(net.reshape(net.global_average_pool(h), shape=(1, CHANNELS[-1])))
    dense = net.parameter("dense", normal(99, 2 * CHANNELS[-1], N_OUT))
    net.output(net.matmul(net.concat(*features, axis=1), dense, name="y"))
    inputs = {f"image_{t}": uniform(i, 1, 1, side, side) for i, t in enumerate("ab")}
    return Workload(
        "DL", net, inputs, plain, hand=("b.",), atol=1e-4, sizes=f"two pictures {side} x {side}",
    )  # fmt: skip
