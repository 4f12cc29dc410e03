"""An activation that ends a convolution gives the bits that it gives in a node of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.graph import build_graph
from asyncnet_gpu.ops import conv_bind, conv_shift
from asyncnet_gpu.passes import finish, finish_convolutions

RANDOM = np.random.default_rng(5)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "SMALLEST_JOINED_BYTES", 0)
    monkeypatch.setattr(conv_bind, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(conv_bind, "_FEWEST_COLUMNS", 8)
    monkeypatch.setattr(conv_bind, "_FINISHED_BYTES", 500)
    monkeypatch.setattr(conv_shift, "_BLOCK_BYTES", 3000)


#: x, w, bias or not, attributes: each goes another way, as the comment says.
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool, dict[str, Any]]] = {
    "pointwise": ((2, 6, 9, 7), (10, 3, 1, 1), True, {"groups": 2}),
    "pointwise_bare": ((1, 6, 9, 7), (10, 6, 1, 1), False, {}),
    "pointwise_batch": ((20, 3, 4, 4), (5, 3, 1, 1), True, {}),
    "windows": ((2, 6, 9, 8), (4, 6, 3, 3), True, {"strides": 2, "pads": 1}),
    "windows_bare": ((1, 3, 9, 8), (4, 3, 3, 3), False, {"strides": 2}),
    "shifted": ((1, 64, 20, 21), (2, 64, 3, 3), True, {"pads": 1}),
    "filter": ((2, 1, 700), (1, 1, 40), True, {}),
}


def relu(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    return net.relu(x)


def clip(net: ag.AsyncNet, x: ag.Blob) -> ag.Blob:
    return net.clip(x, low=-0.5, high=0.25)


@pytest.mark.parametrize("end", [relu, clip])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_bits(
    name: str, end: Callable[[ag.AsyncNet, ag.Blob], ag.Blob], monkeypatch: pytest.MonkeyPatch
) -> None:
    x_shape, w_shape, has_bias, attrs = CONVOLUTIONS[name]
    w, bias = floats(*w_shape), [floats(w_shape[0])] if has_bias else []
    net = ag.AsyncNet("finish")
    x = net.input("x", x_shape, "float32")
    net.output(y=end(net, net.conv(x, *map(net.constant, (w, *bias)), **attrs)))
    (node,) = finish_convolutions(build_graph(net)).nodes
    assert node.op.kind == {relu: "ConvRelu", clip: "ConvClip"}[end]
    given = floats(*x_shape)
    results = []
    for joined in (True, False):
        if not joined:
            monkeypatch.setattr("asyncnet_gpu.passes.finish_convolutions", lambda graph: graph)
        with net.compile(backend="cpu", mode="serial") as exe:
            assert len(exe.plan.steps) == 2 - joined
            results.append(exe.run(x=given)["y"])
    np.testing.assert_array_equal(*results)
    (expected,) = node.op.reference([given, w, *bias], node.attrs)
    np.testing.assert_allclose(results[0], expected, rtol=1e-4, atol=1e-4)


def net_of(build: Callable[[ag.AsyncNet, ag.Blob], None]) -> list[str]:
    net = ag.AsyncNet("stays")
    x = net.input("x", (1, 3, 8, 8), "float32")
    build(net, net.conv(x, net.constant(floats(3, 3, 3, 3)), name="conv"))
    return [node.op.kind for node in finish_convolutions(build_graph(net)).nodes]


def seen(net: ag.AsyncNet, h: ag.Blob) -> None:
    net.output(h=h, y=net.relu(h))


def read_elsewhere(net: ag.AsyncNet, h: ag.Blob) -> None:
    net.output(z=net.exp(h), y=net.relu(h))


def behind_a_barrier(net: ag.AsyncNet, h: ag.Blob) -> None:
    net.barrier()
    net.output(y=net.relu(h))


def of_another_kind(net: ag.AsyncNet, h: ag.Blob) -> None:
    net.output(y=net.tanh(h))


@pytest.mark.parametrize("build", [seen, read_elsewhere, behind_a_barrier, of_another_kind])
def test_what_stays(build: Callable[[ag.AsyncNet, ag.Blob], None]) -> None:
    assert net_of(build)[0] == "Conv"


def test_small_outputs_keep_their_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "SMALLEST_JOINED_BYTES", 1 << 17)
    assert net_of(lambda net, h: net.output(y=net.relu(h))) == ["Conv", "Relu"]
