"""Scales and shifts go into convolutions where that is right, and stay where it is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.graph import Graph, build_graph
from asyncnet_gpu.passes import fold_affine, run_passes

RANDOM = np.random.default_rng(7)
X = RANDOM.standard_normal((2, 4, 6, 5)).astype(np.float32)


def numbers(*shape: int) -> np.ndarray:
    return (0.5 + RANDOM.random(shape)).astype(np.float32)


def kinds(graph: Graph) -> list[str]:
    return [node.op.kind for node in graph.nodes]


def new_net() -> tuple[ag.AsyncNet, ag.Blob]:
    net = ag.AsyncNet("affine")
    return net, net.input("x", X.shape, "float32")


def weights(net: ag.AsyncNet, m: int, c: int, k: int) -> ag.Blob:
    return net.constant(RANDOM.standard_normal((m, c, k, k)).astype(np.float32))


def norm(net: ag.AsyncNet, x: ag.Blob, c: int) -> ag.Blob:
    return net.batch_norm(x, *[net.constant(numbers(c)) for _ in range(4)])


def values(net: ag.AsyncNet, *, folded: bool, monkeypatch: pytest.MonkeyPatch) -> dict:
    with monkeypatch.context() as patch:
        if not folded:
            patch.setattr("asyncnet_gpu.passes.fold_affine", lambda graph: graph)
        with net.compile(backend="cpu", mode="serial") as exe:
            return exe.run(x=X)


def bias_norm_scale(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    h = net.conv(x, weights(net, 6, 4, 3), net.constant(numbers(6)), pads=1)
    h = norm(net, h, 6)
    h = net.mul(net.constant(numbers(6, 1, 1)), h)
    return net.div(net.sub(h, net.constant(numbers(1))), net.constant(numbers(1, 6, 1, 1)))


def scale_before(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    h = net.relu(x)
    h = net.mul(h, net.constant(numbers(1, 4, 1, 1)))
    return net.conv(h, weights(net, 6, 2, 3), pads=1, groups=2)


def shift_before(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    h = net.sub(net.constant(numbers(4, 1, 1)), net.relu(x))
    return net.conv(norm(net, h, 4), weights(net, 6, 2, 2), groups=2, strides=2)


def both_sides(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    return norm(net, shift_before(net, x), 6)


def transposed(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    return norm(net, net.conv_transpose(x, weights(net, 4, 3, 2), strides=2), 3)


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (bias_norm_scale, ["Conv"]),
        (scale_before, ["Relu", "Conv"]),
        (shift_before, ["Relu", "Conv"]),
        (both_sides, ["Relu", "Conv"]),
        (transposed, ["ConvTranspose"]),
    ],
)
def test_folded_and_not_folded_agree(
    build: Callable[[ag.AsyncNet, ag.Blob], ag.Blob], left: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    net, x = new_net()
    net.output(y=build(net, x))
    assert kinds(run_passes(build_graph(net))) == left
    got = values(net, folded=True, monkeypatch=monkeypatch)["y"]
    expected = values(net, folded=False, monkeypatch=monkeypatch)["y"]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def conv(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    return net.conv(x, weights(net, 6, 4, 3), pads=1)


def stays_when_seen(net: ag.AsyncNet, x: ag.Blob) -> None:
    h = conv(net, x)
    net.output(h=h, y=norm(net, h, 6))


def stays_when_read_elsewhere(net: ag.AsyncNet, x: ag.Blob) -> None:
    h = conv(net, x)
    net.output(y=norm(net, h, 6), z=net.relu(h))


def stays_when_a_view_is_read_elsewhere(net: ag.AsyncNet, x: ag.Blob) -> None:
    h = conv(net, x)
    net.output(y=norm(net, h, 6), z=net.relu(net.reshape(h, shape=(2, -1))))


def stays_when_it_is_a_parameter(net: ag.AsyncNet, x: ag.Blob) -> None:
    net.output(y=net.mul(conv(net, x), net.parameter("scale", numbers(6, 1, 1))))


def stays_when_weights_are_a_parameter(net: ag.AsyncNet, x: ag.Blob) -> None:
    w = net.parameter("w", numbers(6, 4, 3, 3))
    net.output(y=norm(net, net.conv(x, w), 6))


def stays_when_it_is_no_number_by_channel(net: ag.AsyncNet, x: ag.Blob) -> None:
    net.output(y=net.mul(conv(net, x), net.constant(numbers(6, 1, 5))))


def stays_when_it_broadcasts(net: ag.AsyncNet, x: ag.Blob) -> None:
    h = net.conv(x, weights(net, 1, 4, 3))
    net.output(y=net.mul(h, net.constant(numbers(6, 1, 1))))


def stays_when_a_shift_meets_padding(net: ag.AsyncNet, x: ag.Blob) -> None:
    net.output(y=conv(net, net.add(net.relu(x), net.constant(numbers(4, 1, 1)))))


def stays_when_it_waits(net: ag.AsyncNet, x: ag.Blob) -> None:
    other = net.exp(x)
    h = conv(net, x)
    net.output(y=net.batch_norm(h, *[net.constant(numbers(6)) for _ in range(4)], after=[other]))
    net.output(z=other)


def stays_when_its_input_changes(net: ag.AsyncNet, x: ag.Blob) -> None:
    state = net.parameter("state", numbers(2, 4, 6, 5))
    h = net.mul(state, net.constant(numbers(4, 1, 1)))
    net.assign_add(state, x)
    net.output(y=conv(net, h))


def stays_when_not_finite(net: ag.AsyncNet, x: ag.Blob) -> None:
    net.output(y=net.div(conv(net, x), net.constant(np.zeros(1, np.float32))))


@pytest.mark.parametrize(
    "build", [f for name, f in list(globals().items()) if name.startswith("stays_")]
)
def test_what_stays(build: Callable[[ag.AsyncNet, ag.Blob], None]) -> None:
    net, x = new_net()
    build(net, x)
    graph = build_graph(net)
    assert kinds(fold_affine(graph)) == kinds(graph)


def test_a_parameter_can_still_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = new_net()
    stays_when_it_is_a_parameter(net, x)
    with net.compile(backend="cpu") as exe:
        before = exe.run(x=X)["y"]
        exe.set_parameter("scale", np.full((6, 1, 1), 0, np.float32))
        assert np.abs(before).max() > 0
        assert not exe.run(x=X)["y"].any()
