"""Recurrent wavefront: four LSTM layers over a hundred steps, one group of nodes for each cell.

Cell (layer, step) needs (layer - 1, step) and (layer, step - 1) only: anti-diagonals are
independent (Appleyard, Kocisky, Blunsom, arXiv:1604.01946). Nothing in the net says so; the planner
has to find it. Gates in the order input, forget, cell, output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import asyncnet_gpu as ag

from .workload import Workload, normal, scaled

N_LAYERS, N_STEPS = 4, 100
BATCH = 16


def gates(xp: Any, total: Any, bias: Any, cell: Any, out: tuple[Any, Any]) -> None:
    """Write the new hidden and cell state from the sum of both products."""
    hidden, new_cell = out
    n = cell.shape[1]
    total = total + bias
    g = xp.tanh(total[:, 2 * n : 3 * n])
    xp.negative(total, out=total)
    xp.exp(total, out=total)
    total += 1
    xp.reciprocal(total, out=total)
    xp.multiply(total[:, n : 2 * n], cell, out=new_cell)
    new_cell += total[:, :n] * g
    xp.multiply(xp.tanh(new_cell), total[:, 3 * n :], out=hidden)


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    layer_in = list(a["x"])
    for layer in range(N_LAYERS):
        w, r, b = (a[f"l{layer}.{k}"] for k in "wrb")
        hidden, cell = a["zero"], a["zero"]
        outs = []
        for x in layer_in:
            pair = xp.empty_like(hidden), xp.empty_like(hidden)
            gates(xp, x @ w + hidden @ r, b, cell, pair)
            hidden, cell = pair
            outs.append(hidden)
        layer_in = outs
    return {"hidden": layer_in[-1], "cell": cell}


def build(scale: float = 1.0, n_steps: int = N_STEPS) -> Workload:
    n = scaled(256, scale, multiple=8, root=2)
    net = ag.AsyncNet("wavefront")
    x = net.input("x", (n_steps, BATCH, n))
    zero = net.parameter("zero", np.zeros((BATCH, n), np.float32))
    layer_in = [
        net.reshape(net.slice(x, starts=(t,), ends=(t + 1,), axes=(0,)), shape=(BATCH, n))
        for t in range(n_steps)
    ]
    for layer in range(N_LAYERS):
        w = net.parameter(f"l{layer}.w", normal(layer, n, 4 * n, size=n**-0.5))
        r = net.parameter(f"l{layer}.r", normal(10 + layer, n, 4 * n, size=n**-0.5))
        b = net.parameter(f"l{layer}.b", normal(20 + layer, 4 * n, size=0.1))
        hidden, cell = zero, zero
        outs = []
        for t, now in enumerate(layer_in):
            name = f"l{layer}.{t}"
            product = net.matmul(now, w, name=f"{name}.in")
            total = net.add(product, net.matmul(hidden, r, name=f"{name}.state"))
            hidden, cell = net.call(
                gates, total, b, cell, shape=[(BATCH, n)] * 2, dtype=["float32"] * 2,
                name=[f"{name}.h", f"{name}.c"],
            )  # fmt: skip
            outs.append(hidden)
        layer_in = outs
    net.output(hidden=hidden, cell=cell)
    return Workload(
        "LSTM wavefront", net, {"x": normal(5, n_steps, BATCH, n)}, plain,
        hand=tuple(f"l{i}." for i in range(1, N_LAYERS)), rtol=1e-3, atol=1e-4,
        sizes=f"{N_LAYERS} layers x {n_steps} steps, {n} wide, batch {BATCH}",
    )  # fmt: skip
