"""Random nets: every mode and every hostile order gives the bits of the serial plan."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncnet_gpu as ag

N_EXAMPLES = int(os.environ.get("ASYNCNET_RANDOM_NETS", "60"))
UNARY = ("relu", "neg", "tanh", "abs", "sigmoid")
BINARY = ("add", "sub", "mul", "maximum")


@st.composite
def nets(draw: st.DrawFn) -> ag.AsyncNet:
    """Branches, views, in-place updates, barriers, products, on up to two devices."""
    net = ag.AsyncNet("random")
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    live = [net.input("x", (4, 8), "float32"), net.input("y", (4, 8), "float32")]
    state = net.parameter("w", rng.standard_normal((4, 8)).astype(np.float32))
    square = net.parameter("q", (0.3 * rng.standard_normal((8, 8))).astype(np.float32))
    pick = st.integers(0, 1 << 30)
    for _ in range(draw(st.integers(1, 25))):
        kind = draw(st.integers(0, 9))
        a, b = (live[draw(pick) % len(live)] for _ in range(2))
        with net.device(draw(st.integers(0, 1))):
            if kind <= 2:
                live.append(getattr(net, UNARY[draw(pick) % len(UNARY)])(a))
            elif kind <= 4:
                live.append(getattr(net, BINARY[draw(pick) % len(BINARY)])(a, b))
            elif kind == 5:
                live.append(net.matmul(a, square))
            elif kind == 6:
                left, right = net.split(a, axis=1, parts=2)
                live.append(net.concat(right, left, axis=1))
            elif kind == 7:
                live.append(net.transpose(net.reshape(a, shape=(8, 4)), axes=(1, 0)))
            elif kind == 8:
                net.barrier(*({a.name: a, b.name: b}.values() if draw(st.booleans()) else ()))
            else:
                live.append(net.add(state, a))
        if kind == 9 and draw(st.booleans()):
            net.assign_add(state, live[0])
    for blob in live[-3:]:
        net.output(blob)
    net.output(net.copy(state))
    return net


def several_runs(net: ag.AsyncNet, **options: object) -> list[dict[str, bytes]]:
    """Run three times with other inputs; states carry over."""
    with net.compile(backend="cpu", blas_threads=1, **options) as exe:
        results = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            x, y = (rng.standard_normal((4, 8)).astype(np.float32) for _ in range(2))
            results.append({k: v.tobytes() for k, v in exe.run(x=x, y=y).items()})
        return results


@settings(max_examples=N_EXAMPLES, deadline=None)
@given(net=nets(), seed=st.integers(0, 1 << 16))
def test_all_modes_give_the_same_bits(net: ag.AsyncNet, seed: int) -> None:
    wanted = several_runs(net, mode="serial")
    assert several_runs(net, mode="streams") == wanted
    assert several_runs(net, mode="graph", allocator="exact") == wanted
    assert several_runs(net, mode="streams", allocator="exact", adversary_seed=seed) == wanted
    assert several_runs(net, mode="graph-serial") == wanted
