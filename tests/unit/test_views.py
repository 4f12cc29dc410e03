"""Views lie in the storage of their input and say so exactly; where they cannot, a copy is made."""

from __future__ import annotations

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.graph import build_graph


def net_of(make):
    net = ag.AsyncNet("views")
    x = net.input("x", (4, 6), "float32")
    h = net.relu(x, name="h")
    made = make(net, h)
    made = made if isinstance(made, tuple) else (made,)
    for i, blob in enumerate(made):
        net.output(**{f"y{i}": blob})
    return net, len(made)


CASES = {
    "reshape": (lambda n, h: n.reshape(h, shape=(2, 12)), lambda a: [a.reshape(2, 12)]),
    "transpose": (lambda n, h: n.transpose(h), lambda a: [a.T]),
    "slice": (
        lambda n, h: n.slice(h, starts=(-1, 1), ends=(-9, 5), steps=(-2, 1)),
        lambda a: [a[::-2, 1:5]],
    ),
    "split": (lambda n, h: n.split(h, axis=1, parts=3), lambda a: np.split(a, 3, 1)),
    "unsqueeze": (lambda n, h: n.unsqueeze(h, axes=(0, -1)), lambda a: [a[None, :, :, None]]),
    "expand": (
        lambda n, h: n.expand(n.unsqueeze(h, axes=0), shape=(3, 1, 1)),
        lambda a: [np.broadcast_to(a, (3, 4, 6))],
    ),
    "chain": (
        lambda n, h: n.reshape(n.slice(n.transpose(h), starts=2, ends=4), shape=(2, 2, 2)),
        lambda a: [a.T[2:4].reshape(2, 2, 2)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_views_are_no_nodes(name):
    net, _ = net_of(CASES[name][0])
    graph = build_graph(net)
    assert [node.op.name for node in graph.nodes] == ["relu"]
    assert {graph.blobs[b].storage for b in graph.outputs.values()} == {graph.blobs["h"].storage}


@pytest.mark.parametrize("mode", ["serial", "streams"])
@pytest.mark.parametrize("name", CASES)
def test_values_through_views(name, mode):
    net, count = net_of(CASES[name][0])
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    with net.compile(backend="cpu", mode=mode) as exe:
        got = exe.run(x=x)
    for i, want in enumerate(CASES[name][1](np.maximum(x, 0))):
        np.testing.assert_array_equal(got[f"y{i}"], want)
    assert len(got) == count


def test_reshape_of_a_transposed_blob_copies():
    net, _ = net_of(lambda n, h: n.reshape(n.transpose(h), shape=(24,)))
    graph = build_graph(net)
    assert [node.op.name for node in graph.nodes] == ["relu", "reshape"]
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    with net.compile(backend="cpu") as exe:
        np.testing.assert_array_equal(exe.run(x=x)["y0"], np.maximum(x, 0).T.reshape(-1))
