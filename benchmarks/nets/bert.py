"""A BERT block (Devlin et al., 2019): three projections side by side, attention, the MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncnet_gpu as ag

from .plain import gelu, layer_norm, softmax
from .workload import Workload, normal, scaled

HIDDEN, HEADS = 384, 6
WIDTH = HIDDEN // HEADS


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    x = a["x"]
    n = x.shape[0]
    q, k, v = (
        (x @ a[f"{p}.w"] + a[f"{p}.b"]).reshape(n, HEADS, WIDTH).transpose(1, 0, 2) for p in "qkv"
    )
    weights = softmax(xp, (q @ k.transpose(0, 2, 1)) * x.dtype.type(WIDTH**-0.5), axis=-1)
    mixed = (weights @ v).transpose(1, 0, 2).reshape(n, HIDDEN)
    h = layer_norm(xp, x + (mixed @ a["o.w"] + a["o.b"]), a["ln1.s"], a["ln1.b"])
    up = gelu(xp, h @ a["up.w"] + a["up.b"])
    return {"y": layer_norm(xp, h + (up @ a["down.w"] + a["down.b"]), a["ln2.s"], a["ln2.b"])}


def _dense(net: ag.AsyncNet, x: ag.Blob, n_out: int, name: str, seed: int) -> ag.Blob:
    n_in = x.shape[1]
    w = net.parameter(f"{name}.w", normal(seed, n_in, n_out, size=n_in**-0.5))
    b = net.parameter(f"{name}.b", normal(seed + 1, n_out, size=0.1))
    made: ag.Blob = net.add(net.matmul(x, w, name=f"{name}.mul"), b, name=name)
    return made


def _norm(net: ag.AsyncNet, x: ag.Blob, name: str) -> ag.Blob:
    s = net.parameter(f"{name}.s", 1 + normal(1, HIDDEN, size=0.1))
    b = net.parameter(f"{name}.b", normal(2, HIDDEN, size=0.1))
    made: ag.Blob = net.layer_norm(x, s, b, axis=-1, name=name)
    return made


def build(scale: float = 1.0) -> Workload:
    n = scaled(128, scale)
    net = ag.AsyncNet("bert")
    x = net.input("x", (n, HIDDEN))
    heads = {}
    for seed, p in enumerate("qkv"):
        split = net.reshape(_dense(net, x, HIDDEN, p, 10 * seed), shape=(n, HEADS, WIDTH))
        heads[p] = net.transpose(split, axes=(1, 2, 0) if p == "k" else (1, 0, 2))
    scores = net.mul(net.matmul(heads["q"], heads["k"], name="scores"), WIDTH**-0.5)
    mixed = net.matmul(net.softmax(scores, axis=-1), heads["v"], name="mixed")
    mixed = net.reshape(net.transpose(mixed, axes=(1, 0, 2)), shape=(n, HIDDEN))
    h = _norm(net, net.add(x, _dense(net, mixed, HIDDEN, "o", 40)), "ln1")
    up = net.gelu(_dense(net, h, 4 * HIDDEN, "up", 50), approximate="tanh")
    net.output(y=_norm(net, net.add(h, _dense(net, up, HIDDEN, "down", 60)), "ln2"))
    return Workload(
        "BERT block", net, {"x": normal(9, n, HIDDEN)}, plain, hand=("k", "v"), rtol=1e-3,
        atol=1e-4, sizes=f"{n} tokens, {HIDDEN} wide, {HEADS} heads",
    )  # fmt: skip
