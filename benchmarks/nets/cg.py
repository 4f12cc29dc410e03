"""CG of the GrCUDA suite: conjugate gradients on a sparse symmetric matrix, three values a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import asyncnet_gpu as ag

from .sparse import plain_product, product
from .workload import Array, Workload, normal, scaled

N_ITERATIONS = 4


def _matrix(n: int) -> tuple[Array, Array]:
    """Return the ring with 4 on the diagonal and -1 beside it: symmetric, positive definite."""
    rows = np.arange(n)
    places = np.stack([(rows - 1) % n, rows, (rows + 1) % n])
    values = np.repeat([[-1.0], [4.0], [-1.0]], n, axis=1)
    return values, places


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    matrix = a["a.values"], a["a.places"]
    x, r = a["x"], a["b"] - plain_product(xp, matrix, a["x"])
    p, rr = r, xp.square(r).sum()
    for _ in range(N_ITERATIONS):
        ap = plain_product(xp, matrix, p)
        alpha = rr / (p * ap).sum()
        x = x + alpha * p
        r = r - alpha * ap
        rr, before = xp.square(r).sum(), rr
        p = r + (rr / before) * p
    return {"solution": x, "residual": rr}


def build(scale: float = 1.0) -> Workload:
    n = scaled(400_000, scale)
    net = ag.AsyncNet("CG")
    values, places = _matrix(n)
    matrix = net.parameter("a.values", values), net.parameter("a.places", places)
    x, b = net.input("x", (n,), "float64"), net.input("b", (n,), "float64")
    r = net.sub(b, product(net, matrix, x, "first"))
    p, rr = r, net.reduce_sum(net.square(r))
    for i in range(N_ITERATIONS):
        ap = product(net, matrix, p, f"product{i}")
        alpha = net.div(rr, net.reduce_sum(net.mul(p, ap)))
        x = net.add(x, net.mul(alpha, p, name=f"x{i}.step"), name=f"x{i}")
        r = net.sub(r, net.mul(alpha, ap))
        rr, before = net.reduce_sum(net.square(r)), rr
        p = net.add(r, net.mul(net.div(rr, before), p))
    net.output(solution=x, residual=rr)
    inputs = {"x": np.zeros(n), "b": normal(1, n, dtype="float64")}
    return Workload(
        "CG", net, inputs, plain, hand=("x",), rtol=1e-8, atol=1e-10,
        sizes=f"n = {n:,} float64, 3 values in a row, {N_ITERATIONS} iterations",
    )  # fmt: skip
