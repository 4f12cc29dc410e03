"""SqueezeNet 1.1 (Iandola et al., 2016): the control, in which streams have little to gain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncnet_gpu as ag

from .plain import conv2d, pool
from .workload import Workload, normal, scaled, uniform

#: Squeezed and expanded channels of each fire module; None is a pool.
FIRES = ((16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256),
         (64, 256))  # fmt: skip
N_CLASSES = 100


def _plain_layer(xp: Any, a: Mapping[str, Any], x: Any, name: str, **attrs: Any) -> Any:
    return xp.maximum(conv2d(xp, x, a[f"{name}.w"], a[f"{name}.b"], **attrs), 0)


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    h = _plain_layer(xp, a, a["x"], "first", strides=2)
    h = pool(xp, h, kernel=3, strides=2, largest=True)
    for i, fire in enumerate(FIRES):
        if fire is None:
            h = pool(xp, h, kernel=3, strides=2, largest=True)
            continue
        h = _plain_layer(xp, a, h, f"fire{i}.squeeze")
        one = _plain_layer(xp, a, h, f"fire{i}.one")
        three = _plain_layer(xp, a, h, f"fire{i}.three", pads=1)
        h = xp.concatenate([one, three], axis=1)
    return {"y": _plain_layer(xp, a, h, "last").mean(axis=(2, 3), keepdims=True)}


def _layer(
    net: ag.AsyncNet, x: ag.Blob, width: int, kernel: int, name: str, seed: int, **attrs: Any
) -> ag.Blob:
    shape = (width, x.shape[1], kernel, kernel)
    size = (2 / (x.shape[1] * kernel * kernel)) ** 0.5
    w = net.parameter(f"{name}.w", normal(seed, *shape, size=size))
    b = net.parameter(f"{name}.b", normal(seed + 1, width, size=0.05))
    made: ag.Blob = net.relu(net.conv2d(x, w, b, name=name, **attrs), name=f"{name}.relu")
    return made


def build(scale: float = 1.0) -> Workload:
    side = max(47, scaled(112, scale, root=2))
    net = ag.AsyncNet("squeezenet")
    x = net.input("x", (1, 3, side, side))
    h = _layer(net, x, 64, 3, "first", 1, strides=2)
    h = net.max_pool(h, kernel=3, strides=2)
    for i, fire in enumerate(FIRES):
        if fire is None:
            h = net.max_pool(h, kernel=3, strides=2)
            continue
        squeezed, expanded = fire
        h = _layer(net, h, squeezed, 1, f"fire{i}.squeeze", 10 * i)
        one = _layer(net, h, expanded, 1, f"fire{i}.one", 10 * i + 2)
        three = _layer(net, h, expanded, 3, f"fire{i}.three", 10 * i + 4, pads=1)
        h = net.concat(one, three, axis=1, name=f"fire{i}")
    net.output(net.global_average_pool(_layer(net, h, N_CLASSES, 1, "last", 200), name="y"))
    hand = tuple(f"fire{i}.one" for i, fire in enumerate(FIRES) if fire)
    return Workload(
        "SqueezeNet", net, {"x": uniform(1, 1, 3, side, side)}, plain, hand=hand, rtol=1e-3,
        atol=1e-4, control=True, sizes=f"{side} x {side}",
    )  # fmt: skip
