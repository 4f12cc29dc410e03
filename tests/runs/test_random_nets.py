"""Random nets: every mode and every hostile order gives the bits of the serial plan."""

from __future__ import annotations

import os
import random
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncnet_gpu as ag
from asyncnet_gpu.graph import Graph
from asyncnet_gpu.passes import drop_dead_nodes

N_EXAMPLES = int(os.environ.get("ASYNCNET_RANDOM_NETS", "60"))
UNARY = ("relu", "neg", "tanh", "abs", "sigmoid")
BINARY = ("add", "sub", "mul", "maximum")


def random_net(seed: int, n: int) -> ag.AsyncNet:
    """Branches, views, in-place updates, barriers, products, on up to two devices."""
    rng = random.Random(seed)
    values = np.random.default_rng(seed)
    net = ag.AsyncNet(f"random{seed}")
    live = [net.input("x", (4, 8), "float32"), net.input("y", (4, 8), "float32")]
    state = net.parameter("w", values.standard_normal((4, 8)).astype(np.float32))
    square = net.parameter("q", (0.3 * values.standard_normal((8, 8))).astype(np.float32))
    for _ in range(n):
        kind = rng.randrange(10)
        recent = live[-4:] if rng.random() < 0.7 else live
        a, b = rng.choice(recent), rng.choice(live)
        with net.device(rng.randrange(2)):
            if kind <= 2:
                live.append(getattr(net, rng.choice(UNARY))(a))
            elif kind <= 4:
                live.append(getattr(net, rng.choice(BINARY))(a, b))
            elif kind == 5:
                live.append(net.matmul(a, square))
            elif kind == 6:
                left, right = net.split(a, axis=1, parts=2)
                live.append(net.concat(right, left, axis=1))
            elif kind == 7:
                live.append(net.transpose(net.reshape(a, shape=(8, 4)), axes=(1, 0)))
            elif kind == 8:
                net.barrier(*({a.name: a, b.name: b}.values() if rng.random() < 0.5 else ()))
            else:
                live.append(net.add(state, a))
        if kind == 9 and rng.random() < 0.5:
            net.assign_add(state, live[0])
    for blob in live[-3:]:
        net.output(blob)
    net.output(net.copy(state))
    return net


def nets() -> st.SearchStrategy[ag.AsyncNet]:
    """Return nets of up to thirty steps; what is in them comes from a seed, evenly spread."""
    return st.builds(random_net, st.integers(0, 1 << 32), st.integers(1, 30))


def several_runs(net: ag.AsyncNet, **options: object) -> list[dict[str, bytes]]:
    """Run three times with other inputs; states carry over."""
    with net.compile(backend="cpu", blas_threads=1, **options) as exe:
        results = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            x, y = (rng.standard_normal((4, 8)).astype(np.float32) for _ in range(2))
            results.append({k: v.tobytes() for k, v in exe.run(x=x, y=y).items()})
        return results


def without_passes(graph: Graph, *_: object) -> Graph:
    """Drop what nobody needs, and leave the rest as it was written."""
    return drop_dead_nodes(graph)


@settings(max_examples=N_EXAMPLES, deadline=None)
@given(net=nets(), seed=st.integers(0, 1 << 16))
def test_all_modes_give_the_same_bits(net: ag.AsyncNet, seed: int) -> None:
    with mock.patch("asyncnet_gpu.api.run_passes", without_passes):
        wanted = several_runs(net, mode="serial")
    assert several_runs(net, mode="serial") == wanted
    assert several_runs(net, mode="streams") == wanted
    # Outputs over inputs that die: otherwise only from some size on.
    with mock.patch("asyncnet_gpu.passes.inplace.SMALLEST_SHARED_BYTES", 1):
        assert several_runs(net, mode="graph", allocator="exact") == wanted
        assert several_runs(net, mode="streams", allocator="exact", adversary_seed=seed) == wanted
        assert several_runs(net, mode="graph-serial") == wanted
