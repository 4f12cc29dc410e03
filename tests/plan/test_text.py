"""What people and other programs read of a plan: JSON, the table of lanes, explanations."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from helpers.nets import CUDA_LIKE, HALF, UPDATE, mix, random_net

from asyncnet_gpu.errors import PlanError
from asyncnet_gpu.graph import build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.types import Plan


def planned(net: AsyncNet, **options: Any) -> Plan:
    graph = place(build_graph(net))
    options = {"mode": "streams", "model": CUDA_LIKE, "alignment": 64, **options}
    return make_plan(graph, device_kind="cpu", **options)


def diamond(**options: Any) -> Plan:
    net = AsyncNet("diamond")
    h = mix(net, net.input("x", (16,)), sizes=(64,), name="h", flops=1e9)
    (half,) = net.add_node(HALF, (h,), {}, name="half")
    a = mix(net, h, name="a", flops=1e9)
    b = mix(net, half, name="b", flops=1e9)
    c = mix(net, name="c", flops=1e9)
    net.output(mix(net, a, b, name="y"), c)
    return planned(net, **options)


def test_the_json_has_the_published_keys_and_survives_a_round_trip() -> None:
    data = planned(random_net(3, 30, 2)).to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["schema"] == 1
    assert set(data) >= {
        "schema", "net", "mode", "allocator", "streams", "nodes", "blobs", "storages", "steps",
        "events", "arena_bytes",
    }  # fmt: skip
    assert set(data["streams"][0]) >= {"id", "device", "kind", "scratch_bytes"}
    assert set(data["nodes"][0]) >= {"id", "name", "op", "device", "reads", "writes", "after"}
    assert set(data["blobs"][0]) >= {"name", "shape", "dtype", "device", "storage", "kind"}
    assert set(data["storages"][0]) >= {"id", "device", "bytes", "offset"}
    assert set(data["steps"][0]) == {"node", "stream", "waits", "records"}
    known = {b["name"] for b in data["blobs"]}
    assert known >= {n for node in data["nodes"] for n in (*node["reads"], *node["writes"])}
    assert {s["device"] for s in data["streams"]} <= {"cpu:0", "cpu:1"}


def test_the_description_shows_lanes_waits_with_reasons_and_the_arena() -> None:
    plan = diamond(allocator="exact")
    text = plan.describe()
    assert f"{len(plan.steps)} steps on {len(plan.streams)} streams" in text
    assert f"arena on cpu:0: {plan.arena_bytes[0]:,} bytes" in text
    for stream in plan.streams:
        assert f"cpu:0/{stream.id} compute" in text
    assert text.count("waits e") == plan.n_waits > 0
    assert "RAW" in text
    assert "from Mix 'h'" in text
    for step in plan.steps:
        assert plan.node_of(step).name in text


def test_a_direct_dependency_names_its_blob() -> None:
    text = diamond().explain("a", "y")
    assert text == "y waits for a: 'y' waits for 'a' (RAW a)."


def test_a_chain_names_every_link_through_views() -> None:
    plan = diamond()
    text = plan.explain("h", "y")
    assert text.startswith("y waits for h: ")
    assert text.count("waits for") == 3
    assert "(RAW half)" in plan.explain("half", "b")


def test_independent_nodes_may_overlap() -> None:
    assert diamond(allocator="exact").explain("a", "c") == (
        "a and c are unordered: they may overlap."
    )


def test_an_order_that_only_the_plan_makes_is_called_so() -> None:
    text = diamond(mode="serial").explain("a", "c")
    assert text == "c comes after a only because the plan puts them in one order."


def test_the_other_way_round_is_said() -> None:
    assert "the other way round" in diamond().explain("y", "h")


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(PlanError, match=r"unknown name 'hal'.*Did you mean 'half'\?"):
        diamond().explain("hal", "y")


def state_net() -> Plan:
    """r0 reads s, u0 updates it, r1 reads that, u1 updates again, r2 reads that; all dear."""
    net = AsyncNet("state")
    x = net.input("x", (8,))
    state = net.parameter("s", np.zeros(8, np.float32))
    outs = [mix(net, state, flops=1e9, name="r0")]
    for i in range(2):
        net.add_node(UPDATE, (state, x), {}, name=f"u{i}")
        outs.append(mix(net, state, flops=1e9, name=f"r{i + 1}"))
    net.output(*outs)
    return planned(net, allocator="exact")


def test_of_a_blob_written_twice_the_version_is_meant_that_the_reader_sees() -> None:
    plan = state_net()
    assert plan.explain("s", "r1") == "r1 waits for s: 'r1' waits for 'u0' (RAW s)."
    assert plan.explain("s", "r2") == "r2 waits for s: 'r2' waits for 'u1' (RAW s)."
    assert plan.explain("r1", "s") == "s waits for r1: 'u1' waits for 'r1' (WAR s)."
    assert plan.explain("r0", "s") == "s waits for r0: 'u0' waits for 'r0' (WAR s)."
    assert "made by one node" in plan.explain("u0", "s")


def test_what_is_there_before_the_run_is_waited_for_by_nobody() -> None:
    plan = state_net()
    assert plan.explain("s", "r0").startswith("r0 does not wait for s: s is of kind state")
    assert "x is of kind input" in plan.explain("x", "u0")
    assert "x is of kind input" in plan.explain("u0", "x")


def test_barriers_are_explained_by_name_and_as_links() -> None:
    net = AsyncNet("barriers")
    x = net.input("x", (8,))
    a, b = (mix(net, x, flops=1e9, name=n) for n in "ab")
    net.barrier(a, b, name="both")
    y = mix(net, b, name="y")
    net.barrier(name="all")
    net.output(y, mix(net, x, name="z"), mix(net, a, name="w"))
    plan = planned(net, allocator="exact")
    assert plan.explain("both", "y") == "y waits for both: 'y' waits for 'both' (barrier over b)."
    assert plan.explain("a", "both") == "both waits for a: 'both' waits for 'a' (barrier over a)."
    assert plan.explain("a", "y") == (
        "y waits for a: 'both' waits for 'a' (barrier over a); "
        "'y' waits for 'both' (barrier over b)."
    )
    assert "'z' waits for 'all' (barrier over the whole net)" in plan.explain("y", "z")


def test_the_lines_of_nodes_are_given_when_asked_for() -> None:
    plan = diamond()
    assert "line" not in plan.to_dict()["nodes"][0]
    data = plan.to_dict(lines=True)
    by_name = {node["name"]: node["line"] for node in data["nodes"]}
    assert "nets.py:" in by_name["h"]  # the helper that adds the node
    assert [{k: v for k, v in n.items() if k != "line"} for n in data["nodes"]] == (
        plan.to_dict()["nodes"]
    )


def test_explain_of_nodes_that_take_no_step() -> None:
    net = AsyncNet("gone")
    x = net.input("x", (256, 256), "float32")
    first = net.matmul(x, x, name="first")
    left = net.relu(first, name="left")
    joined = net.abs(left, name="joined")
    net.relu(first, name="unused")
    ones = net.constant(np.ones((256, 256), np.float32))
    twos = net.add(ones, ones, name="twos")
    net.output(y=net.matmul(joined, twos, name="last"))
    with net.compile(backend="cpu", mode="serial") as exe:
        explain = exe.plan.explain
        assert "left" not in [node.name for node in exe.plan.graph.nodes]
        assert explain("first", "left") == explain("first", "joined")
        assert "made by one node" in explain("left", "joined")
        assert "twos is of kind constant" in explain("twos", "last")
        assert "nothing observable needs it" in explain("first", "unused")
