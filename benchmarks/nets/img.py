"""IMG of the GrCUDA suite: two blurs, their edges, an unsharpened picture, all combined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncnet_gpu.demo.nets import gaussian, image_net

from .workload import Workload, scaled, uniform

_SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)


def _filter(xp: Any, x: Any, weights: Any) -> Any:
    radius = weights.shape[0] // 2
    height, width = x.shape[2:]
    wide = xp.pad(x, [(0, 0), (0, 0), (radius, radius), (radius, radius)], mode="edge")
    total = xp.zeros_like(x)
    for i in range(weights.shape[0]):
        for j in range(weights.shape[1]):
            if weights[i, j]:
                total += wide[:, :, i : i + height, j : j + width] * weights[i, j]
    return total


def _edges(xp: Any, x: Any) -> Any:
    return xp.sqrt(xp.square(_filter(xp, x, _SOBEL)) + xp.square(_filter(xp, x, _SOBEL.T)))


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    image = a["image"]
    small = _filter(xp, image, gaussian(3, 1.0))
    large = _filter(xp, image, gaussian(5, 10.0))
    edges = _edges(xp, large)
    mask = xp.clip((edges - edges.min()) * (5.0 / (edges.max() - edges.min())), 0, 1)
    sharp = xp.clip(image * 1.5 - _filter(xp, image, gaussian(3, 5.0)) * 0.5, 0, 1)
    first = sharp * mask + large * (1 - mask)
    edge = xp.clip(_edges(xp, small), 0, 1)
    return {"picture": first * edge + small * (1 - edge)}


def build(scale: float = 1.0) -> Workload:
    side = scaled(1024, scale, root=2)
    net = image_net((1, 1, side, side))
    net.name = "IMG"
    return Workload(
        "IMG", net, {"image": uniform(1, 1, 1, side, side)}, plain,
        hand=("blur_small", "edges_small", "edges_large", "blur_unsharpen"), rtol=1e-3, atol=1e-4,
        sizes=f"{side} x {side} float32",
    )  # fmt: skip
