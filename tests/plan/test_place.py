"""Copies for cross-device edges: how many, of which version, where, and what needs none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.nets import HALF, UPDATE, mix, random_net
from hypothesis import given
from hypothesis import strategies as st

from asyncnet_gpu.errors import PlanError
from asyncnet_gpu.graph import Graph, build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.place import place, replica_names
from asyncnet_gpu.plan.deps import find_dependencies


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def test_one_device_is_left_alone() -> None:
    graph = build_graph(random_net(1, 10))
    assert place(graph) is graph


def test_one_copy_for_each_consumer_device_right_after_the_producer() -> None:
    net = AsyncNet("fan")
    h = mix(net, net.input("x", (8,)), name="h")
    mix(net, h, name="between")
    outs = []
    for device in (1, 1, 2):
        with net.device(device):
            outs.append(mix(net, h))
    net.output(*outs)
    graph = place(build_graph(net))
    assert names(graph)[:4] == ["h", "h@1", "h@2", "between"]
    copies = [node for node in graph.nodes if node.op.name == "copy"]
    assert [(c.device, c.reads, c.writes) for c in copies] == [
        (1, ("h",), ("h@1",)),
        (2, ("h",), ("h@2",)),
    ]
    assert [node.id for node in graph.nodes] == list(range(len(graph.nodes)))


def test_an_input_is_copied_at_the_front() -> None:
    net = AsyncNet("front")
    x = net.input("x", (8,))
    mix(net, x, name="here")
    with net.device(1):
        net.output(mix(net, x, name="there"))
    assert names(place(build_graph(net)))[0] == "x@1"


def test_a_copy_from_before_an_update_serves_nobody_after_it() -> None:
    net = AsyncNet("versions")
    state = net.parameter("s", np.zeros(8, np.float32))
    with net.device(1):
        old = mix(net, state, name="old")
    net.add_node(UPDATE, (state,), {}, name="update")
    with net.device(1):
        new = mix(net, state, name="new")
    net.output(old, new)
    graph = place(build_graph(net))
    node = {n.name: n for n in graph.nodes}
    assert names(graph) == ["s@1", "old", "update", "s@1.2", "new"]
    assert node["old"].reads == ("s@1",)
    assert node["new"].reads == ("s@1.2",)
    assert find_dependencies(graph)[node["update"].id] == {node["s@1"].id: ("WAR", "s")}


def test_a_view_is_copied_as_a_contiguous_blob_of_its_own() -> None:
    net = AsyncNet("view")
    h = mix(net, net.input("x", (8,)), sizes=(16,), name="h")
    (half,) = net.add_node(HALF, (h,), {"second": True}, name="half")
    with net.device(1):
        net.output(mix(net, half, name="y"))
    graph = place(build_graph(net))
    blob = graph.blobs["half@1"]
    assert (blob.offset, blob.strides) == (0, (4,))
    assert graph.storages[blob.storage].nbytes == 32


def test_values_that_nobody_updates_get_replicas_and_no_copy() -> None:
    net = AsyncNet("replica")
    w = net.parameter("w", np.arange(8, dtype=np.float32))
    (half,) = net.add_node(HALF, (w,), {}, name="half")
    with net.device(1):
        net.output(mix(net, w, half, name="y"))
    graph = place(build_graph(net))
    assert names(graph) == ["y"]
    assert graph.nodes[0].reads == ("w@1", "half@1")
    assert graph.blobs["w@1"].storage == graph.blobs["half@1"].storage
    assert graph.storages[graph.blobs["w@1"].storage].kind == "parameter"
    assert graph.values["w@1"] is graph.values["w"]
    assert replica_names(graph, "w") == ("w", "w@1")


@pytest.mark.parametrize("persistent", [True, False])
def test_a_reader_elsewhere_still_comes_after_the_barrier(persistent: bool) -> None:
    net = AsyncNet("barrier")
    x = net.input("x", (8,))
    w = net.parameter("w", np.zeros(8, np.float32))
    h = mix(net, x, name="h")
    other = mix(net, x, name="other")
    net.barrier(w if persistent else h, other, name="b")
    with net.device(1):
        net.output(mix(net, w if persistent else h, name="y"))
    graph = place(build_graph(net))
    node = {n.name: n for n in graph.nodes}
    assert node["y"].after == (node["b"].id,)


def test_a_barrier_across_devices_makes_no_copy() -> None:
    net = AsyncNet("across")
    a = mix(net, net.input("x", (8,)), name="a")
    with net.device(1):
        b = mix(net, name="b")
    net.barrier(a, b, name="meet")
    net.output(a, b)
    assert names(place(build_graph(net))) == ["a", "b", "meet"]


def test_an_update_of_a_blob_of_another_device_is_refused() -> None:
    net = AsyncNet("wrong")
    state = net.parameter("s", np.zeros(8, np.float32))
    with net.device(1):
        net.add_node(UPDATE, (state,), {}, name="update")
        net.output(mix(net, name="y"))
    with pytest.raises(PlanError, match=r"updates 's' in place: expected a blob of device 1.*"
                       r"net\.device\(0\)"):  # fmt: skip
        place(build_graph(net))


@given(seed=st.integers(0, 2**32), n=st.integers(1, 40))
def test_only_copies_and_barriers_look_at_other_devices(seed: int, n: int) -> None:
    before = build_graph(random_net(seed, n, n_devices=3))
    graph = place(before)
    made: set[tuple[str, int, int]] = set()
    version = {}
    for node in graph.nodes:
        assert all(i < node.id for i in node.after)
        devices = {graph.storages[graph.blobs[r].storage].device for r in node.reads}
        if node.op.name == "copy":
            storage = graph.blobs[node.reads[0]].storage
            key = (node.reads[0], version.get(storage, -1), node.device)
            assert key not in made
            made.add(key)
        elif node.op.name not in BARRIERS:
            assert devices <= {node.device}
            version.update({graph.blobs[w].storage: node.id for w in node.writes})
    kept = [n for n in graph.nodes if n.op.name != "copy"]
    assert [(n.name, n.op, n.device, n.writes) for n in kept] == [
        (n.name, n.op, n.device, n.writes) for n in before.nodes
    ]
    assert place(replace(before)) == graph


def test_a_parameter_that_is_set_is_set_in_its_replicas() -> None:
    net = AsyncNet("set")
    w = net.parameter("w", np.ones(4, np.float32))
    with net.device(1):
        y = net.call(np_copy, w, shape=(4,), dtype="float32", name="y")
    net.output(y)
    with net.compile(backend="cpu", mode="serial") as exe:
        exe.set_parameter("w", np.full(4, 5, np.float32))
        assert np.array_equal(exe.run()["y"], np.full(4, 5))


def np_copy(xp: Any, a: Any, out: Any) -> None:
    xp.copyto(out, a)
