"""Chains compute the bits of their members, and take nothing away that somebody can see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.graph import Graph, build_graph
from asyncnet_gpu.passes import chains, join_chains
from asyncnet_gpu.passes.prune import drop_dead_nodes

SHAPE = (3, 5, 7, 6)
RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal(SHAPE).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncnet_gpu.ops.chain.BLOCK", 100)  # 42 numbers for each channel
    monkeypatch.setattr(chains, "SMALLEST_JOINED_BYTES", 500)
    monkeypatch.setattr("asyncnet_gpu.passes.inplace.SMALLEST_SHARED_BYTES", 500)


def new_net() -> tuple[ag.AsyncNet, ag.Blob]:
    net = ag.AsyncNet("chain")
    x = net.input("x", SHAPE, "float32")
    return net, net.conv(x, net.constant(np.eye(5, dtype=np.float32)[:, :, None, None]))


def kinds(net: ag.AsyncNet) -> list[str]:
    return [node.op.kind for node in join_chains(drop_dead_nodes(build_graph(net))).nodes]


def run(net: ag.AsyncNet, **options: Any) -> dict[str, np.ndarray]:
    with net.compile(backend="cpu", **{"mode": "serial", **options}) as exe:
        return exe.run(x=X)


def check_bits(net: ag.AsyncNet, patch: pytest.MonkeyPatch) -> None:
    joined = [run(net), run(net, mode="streams", allocator="exact", adversary_seed=1)]
    patch.setattr("asyncnet_gpu.passes.join_chains", lambda graph: graph)
    expected = run(net)
    for got in joined:
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)


def hard_swish(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    gate = net.clip(net.add(x, net.constant(np.float32(3))), low=0.0, high=6.0)
    return net.div(net.mul(x, gate), net.constant(np.float32(6)))


def by_channel(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    scale = net.constant(RANDOM.standard_normal((5, 1, 1)).astype(np.float32))
    row = net.constant(RANDOM.standard_normal(6).astype(np.float32))
    return net.tanh(net.add(net.mul(net.relu(x), scale), row))


def temporaries(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    # Members that need scratch of their own, and a slope as large as the array.
    return net.prelu(net.sub(net.gelu(net.erf(x)), x), net.constant(0.1 * X))


def other_dtypes(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    below = net.less(net.exp(x), net.constant(np.float32(1)))
    return net.logical_not(net.logical_and(below, net.greater(net.neg(x), x)))


def many_alive(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    made = [net.add(x, net.constant(np.float32(i))) for i in range(5)]
    total = made[0]
    for blob in made[1:]:
        total = net.mul(total, net.sub(blob, made[0]))
    return total


def shared(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    # A path on which values are read again further down.
    a = net.relu(x)
    b = net.mul(a, x)
    c = net.sub(b, a)
    return net.add(net.mul(net.add(c, b), c), a)


def doubled(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    y = net.sigmoid(x)
    return net.add(net.mul(y, y), y)


def bits_and_remainders(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    bits = net.bit_cast(net.abs(x), dtype="uint32")
    bits = net.shift_right(bits, net.constant(np.uint32(16)))
    bits = net.bitwise_xor(net.shift_left(bits, net.constant(np.full(6, 16, np.uint32))), bits)
    whole = net.bit_cast(bits, dtype="float32")
    return net.fmod(net.neg(net.mod(whole, net.constant(np.float32(0.3)))), x)


@pytest.mark.parametrize(
    "build",
    [
        hard_swish, by_channel, temporaries, other_dtypes, many_alive, shared, doubled,
        bits_and_remainders,
    ],
)  # fmt: skip
def test_a_chain_has_the_bits_of_its_members(
    build: Callable[[ag.AsyncNet, ag.Blob], ag.Blob], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = new_net()
    net.output(y=build(net, x))
    assert kinds(net)[-1] == "Chain"
    check_bits(net, monkeypatch)


def test_a_chain_may_write_over_an_input_that_dies() -> None:
    net, x = new_net()
    net.output(y=net.conv(hard_swish(net, x), net.constant(np.ones((1, 5, 1, 1), np.float32))))
    with net.compile(backend="cpu", mode="serial") as exe:
        graph: Graph = exe.plan.graph
        (chain,) = [node for node in graph.nodes if node.op.kind == "Chain"]
        assert graph.blobs[chain.reads[0]].storage == graph.blobs[chain.writes[0]].storage


@pytest.mark.parametrize("seed", range(12))
def test_random_nets(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(seed)
    net, x = new_net()
    blobs = [x]
    small = net.constant(random.standard_normal((5, 1, 1)).astype(np.float32))
    for _ in range(14):
        a, b = (blobs[int(i)] for i in random.integers(max(0, len(blobs) - 4), len(blobs), 2))
        if random.random() < 0.2:
            b = small
        if random.random() < 0.15:
            blobs.append(net.transpose(a, axes=(0, 1, 2, 3)))  # a view
        elif random.random() < 0.5:
            blobs.append(getattr(net, str(random.choice(["relu", "tanh", "sigmoid", "gelu"])))(a))
        else:
            blobs.append(getattr(net, str(random.choice(["add", "mul", "maximum", "sub"])))(a, b))
    for i in random.choice(len(blobs), 2, replace=False):
        net.output(**{f"y{i}": blobs[int(i)]})
    net.output(last=blobs[-1])
    check_bits(net, monkeypatch)


def parts_when_seen(net: ag.AsyncNet, x: ag.Blob) -> list[str]:
    h = net.relu(x)
    net.output(h=h, y=net.neg(h))
    return ["Relu", "Neg"]


def parts_when_two_read(net: ag.AsyncNet, x: ag.Blob) -> list[str]:
    h = net.relu(x)
    net.output(y=net.tanh(h), z=net.exp(h))
    return ["Relu", "Tanh", "Exp"]


def parts_when_a_view_is_read(net: ag.AsyncNet, x: ag.Blob) -> list[str]:
    h = net.relu(x)
    net.output(y=net.add(net.tanh(h), net.transpose(h, axes=(0, 1, 2, 3))))
    return ["Relu", "Chain"]


def parts_when_it_waits(net: ag.AsyncNet, x: ag.Blob) -> list[str]:
    other = net.matmul(x, net.transpose(x, axes=(0, 1, 3, 2)))
    net.output(y=net.tanh(net.relu(x), after=[other]), z=other)
    return ["MatMul", "Relu", "Tanh"]


def parts_when_an_operand_changes(net: ag.AsyncNet, x: ag.Blob) -> list[str]:
    state = net.parameter("state", X)
    h = net.add(x, state)
    changed = net.assign_add(state, x)
    net.output(y=net.neg(net.exp(h)), z=net.mul(changed, x))
    return ["Add", "AssignAdd", "Chain", "Mul"]


def parts_at_a_barrier(net: ag.AsyncNet, x: ag.Blob) -> list[str]:
    h = net.relu(x)
    net.barrier(h)
    net.output(y=net.tanh(h))
    return ["Relu", "AsyncBarrier", "Tanh"]


def parts_when_independent(net: ag.AsyncNet, x: ag.Blob) -> list[str]:
    net.output(y=net.add(net.relu(x), net.neg(x)))
    return ["Relu", "Chain"]


def parts_when_arithmetic_counts(net: ag.AsyncNet, x: ag.Blob) -> list[str]:
    net.output(y=net.tanh(net.exp(net.sigmoid(x))))
    return ["Sigmoid", "Exp", "Tanh"]


def parts_when_shapes_differ(net: ag.AsyncNet, x: ag.Blob) -> list[str]:
    h = net.exp(net.reduce_sum(x, axes=(0,), keepdims=True))
    net.output(y=net.tanh(net.mul(x, h)))
    return ["ReduceSum", "Exp", "Chain"]


@pytest.mark.parametrize(
    "build", [f for name, f in list(globals().items()) if name.startswith("parts_")]
)
def test_what_stays_apart(build: Callable[[ag.AsyncNet, ag.Blob], list[str]]) -> None:
    net, x = new_net()
    expected = build(net, x)
    assert kinds(net) == ["Conv", *expected]
    run(net)


def test_readers_of_an_input_stay_single() -> None:
    net = ag.AsyncNet("inputs")
    x = net.input("x", SHAPE, "float32")
    net.output(y=net.neg(net.exp(net.relu(x))))
    assert kinds(net) == ["Relu", "Chain"]


def test_small_arrays_stay_single(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "SMALLEST_JOINED_BYTES", X.nbytes + 1)
    net, x = new_net()
    net.output(y=net.neg(net.relu(x)))
    assert kinds(net) == ["Conv", "Relu", "Neg"]


def test_other_backends_keep_their_nodes() -> None:
    net, x = new_net()
    net.output(y=hard_swish(net, x))
    with net.compile(backend="sim") as exe:
        assert [n.op.kind for n in exe.plan.graph.nodes] == ["Conv", "Add", "Clip", "Mul", "Div"]
