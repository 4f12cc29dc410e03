"""HITS of the GrCUDA suite: hubs and authorities, products with A and Aᵀ cross-linked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import asyncnet_gpu as ag

from .sparse import plain_product, product, random_matrix
from .workload import Workload, scaled

N_ITERATIONS = 5


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    hub, authority = a["hub"], a["authority"]
    forward, backward = (a["a.values"], a["a.places"]), (a["t.values"], a["t.places"])
    for _ in range(N_ITERATIONS):
        new_authority = plain_product(xp, backward, hub)
        new_hub = plain_product(xp, forward, authority)
        authority = new_authority / new_authority.sum()
        hub = new_hub / new_hub.sum()
    return {"hubs": hub, "authorities": authority}


def build(scale: float = 1.0) -> Workload:
    n = scaled(200_000, scale)
    net = ag.AsyncNet("HITS")
    matrices = {}
    for seed, name in enumerate("at"):
        # Any matrix of the shape of the transpose serves: the work is the same.
        values, places = random_matrix(seed + 1, n, "float32")
        matrices[name] = (
            net.parameter(f"{name}.values", values), net.parameter(f"{name}.places", places)
        )  # fmt: skip
    hub, authority = net.input("hub", (n,)), net.input("authority", (n,))
    for i in range(N_ITERATIONS):
        new_authority = product(net, matrices["t"], hub, f"authority{i}")
        new_hub = product(net, matrices["a"], authority, f"hub{i}")
        authority = net.div(new_authority, net.reduce_sum(new_authority, name=f"authority{i}.sum"))
        hub = net.div(new_hub, net.reduce_sum(new_hub, name=f"hub{i}.sum"))
    net.output(hubs=hub, authorities=authority)
    ones = np.ones(n, np.float32)
    return Workload(
        "HITS", net, {"hub": ones, "authority": ones.copy()}, plain, hand=("hub",), rtol=1e-3,
        atol=1e-9, sizes=f"n = {n:,}, 3 values in a row, {N_ITERATIONS} iterations",
    )  # fmt: skip
