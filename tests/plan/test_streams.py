"""Streams and waits of both allocators: optimal where promised, sparing where events are dear."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from helpers.nets import CPU_LIKE, CUDA_LIKE, dag_net, mix, nasnet_like, random_net
from helpers.plan_checker import check_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet_gpu.errors import PlanError
from asyncnet_gpu.graph import Graph, build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.deps import find_dependencies, reduce_dependencies
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.verify import verify

SEEDS = st.integers(0, 2**32)


def planned(graph: Graph, **options: Any) -> Plan:
    options = {"device_kind": "cpu", "model": CUDA_LIKE, "alignment": 64, **options}
    return make_plan(graph, **options)


def test_exact_waits_are_the_minimum_over_all_path_covers() -> None:
    """Every way to pick edges of the reduction as stream order, on every DAG of 4 nodes."""
    pairs = list(combinations(range(4), 2))
    for mask in range(1 << len(pairs)):
        edges: dict[int, list[int]] = {}
        for bit, (a, b) in enumerate(pairs):
            if mask >> bit & 1:
                edges.setdefault(b, []).append(a)
        check_against_enumeration(build_graph(dag_net(edges, 4)))


@given(st.integers(5, 7), st.data())
def test_exact_waits_are_the_minimum_on_dags_of_seven_nodes(n: int, data: st.DataObject) -> None:
    edges = {b: [a for a in range(b) if data.draw(st.booleans())] for b in range(1, n)}
    check_against_enumeration(build_graph(dag_net(edges, n)))


def check_against_enumeration(graph: Graph) -> None:
    reduced = reduce_dependencies(find_dependencies(graph))
    edges = [(p, node) for node, preds in enumerate(reduced) for p in preds]
    most = 0
    for size in range(len(edges), 0, -1):
        for chosen in combinations(edges, size):
            heads, tails = {a for a, _ in chosen}, {b for _, b in chosen}
            if len(heads) == len(tails) == size:
                most = size
                break
        if most:
            break
    plan = planned(graph, allocator="exact")
    verify(plan)
    assert plan.n_waits == len(edges) - most


@settings(max_examples=150)
@given(seed=SEEDS, n=st.integers(1, 45), devices=st.integers(1, 2))
def test_exact_plans_have_the_optimal_number_of_waits(seed: int, n: int, devices: int) -> None:
    plan = planned(place(build_graph(random_net(seed, n, devices))), allocator="exact")
    verify(plan)
    report = check_plan(plan.to_dict())
    assert report.n_waits == report.optimum
    assert not report.redundant


@pytest.mark.parametrize("long", ["a", "b"])
def test_the_critical_path_of_an_exact_plan_is_one_stream(long: str) -> None:
    net = AsyncNet("diamond")
    h = mix(net, net.input("x", (8,)), name="h")
    a, b = (mix(net, h, flops=3e9 if name == long else 1e9, name=name) for name in "ab")
    net.output(mix(net, a, b, name="y"))
    plan = planned(build_graph(net), allocator="exact")
    streams = {plan.node_of(s).name: s.stream for s in plan.steps}
    assert streams["h"] == streams[long] == streams["y"]
    assert plan.n_waits == 2


@given(seed=SEEDS, n=st.integers(1, 40))
def test_exact_streams_order_nothing_that_the_net_does_not(seed: int, n: int) -> None:
    graph = build_graph(random_net(seed, n))
    plan = planned(graph, allocator="exact")
    reduced = reduce_dependencies(find_dependencies(graph))
    last: dict[int, int] = {}
    for step in plan.steps:
        if step.stream in last:
            assert last[step.stream] in reduced[step.node]
        last[step.stream] = step.node


OPTIONS = [
    {"mode": "serial"},
    {"mode": "streams"},
    {"mode": "streams", "max_streams": 2},
    {"mode": "streams", "model": CPU_LIKE},
    {"mode": "graph-serial"},
    {"mode": "graph", "allocator": "exact", "max_streams": 3},
]


@settings(max_examples=60)
@given(seed=SEEDS, n=st.integers(1, 45), devices=st.integers(1, 3))
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_random_plans_pass_both_proofs(
    options: dict[str, Any], seed: int, n: int, devices: int
) -> None:
    plan = planned(place(build_graph(random_net(seed, n, devices))), **options)
    verify(plan)
    report = check_plan(plan.to_dict())
    assert not report.redundant
    for device in {s.device for s in plan.streams}:
        kinds = [s.kind for s in plan.streams if s.device == device]
        assert kinds.count("compute") <= options.get("max_streams", 8)


@given(seed=SEEDS, devices=st.integers(1, 2))
def test_serial_plans_are_totally_ordered(seed: int, devices: int) -> None:
    plan = planned(place(build_graph(random_net(seed, 25, devices))), mode="serial")
    assert [s.node for s in plan.steps] == list(range(len(plan.steps)))
    assert len(plan.streams) == len({n.device for n in plan.graph.nodes})
    recorder = {s.records: i for i, s in enumerate(plan.steps) if s.records is not None}
    for i in range(1, len(plan.steps)):
        before, step = plan.steps[i - 1], plan.steps[i]
        waited = {recorder[e] for e in step.waits}
        assert step.stream == before.stream or i - 1 in waited


@pytest.mark.parametrize("allocator", ["cost", "exact"])
def test_a_chain_is_one_stream(allocator: str) -> None:
    graph = build_graph(dag_net({i: [i - 1] for i in range(1, 50)}, 50))
    plan = planned(graph, allocator=allocator)
    assert (len(plan.streams), plan.n_waits) == (1, 0)


def branches(n: int, length: int, flops: float) -> Graph:
    net = AsyncNet("branches")
    ends = []
    for _ in range(n):
        blob = net.blob("x") if ends else net.input("x", (8,))
        for _ in range(length):
            blob = mix(net, blob, flops=flops)
        ends.append(blob)
    net.output(mix(net, *ends, flops=1.0))
    return build_graph(net)


def test_tiny_branches_share_one_stream_where_a_hand_over_is_dear() -> None:
    assert len(planned(branches(4, 5, flops=100.0), model=CPU_LIKE).streams) == 1


def test_long_branches_spread_over_the_lanes_and_no_further() -> None:
    graph = branches(4, 5, flops=3e9)
    assert len(planned(graph, model=CPU_LIKE).streams) == 2
    assert len(planned(graph).streams) == 4
    assert len(planned(graph, max_streams=3).streams) == 3
    assert len(planned(graph, max_streams=1).streams) == 1


def test_copies_have_a_stream_of_their_own() -> None:
    net = AsyncNet("copies")
    x = net.input("x", (8,))
    with net.device(1):
        net.output(mix(net, x, name="y"), mix(net, name="z"))
    plan = planned(place(build_graph(net)))
    kinds = {plan.node_of(s).name: plan.streams[s.stream].kind for s in plan.steps}
    assert kinds == {"x@1": "copy", "y": "compute", "z": "compute"}


def test_the_longest_path_has_the_most_urgent_stream() -> None:
    net = AsyncNet("urgent")
    x = net.input("x", (8,))
    short = mix(net, x, flops=1e9)
    long = mix(net, x, flops=1e9, name="long")
    for _ in range(3):
        long = mix(net, long, flops=1e9)
    net.output(short, long)
    plan = planned(build_graph(net))
    assert len(plan.streams) == 2
    first = next(s for s in plan.steps if plan.node_of(s).name == "long")
    assert plan.streams[first.stream].priority == 0


@pytest.mark.parametrize("allocator", ["cost", "exact"])
def test_equal_nets_give_equal_plans(allocator: str) -> None:
    for seed in range(5):
        first, second = (
            planned(place(build_graph(random_net(seed, 40, 2))), allocator=allocator).to_dict()
            for _ in range(2)
        )
        assert first == second


def test_a_thousand_nodes_in_exact_mode_need_the_optimal_number_of_waits() -> None:
    graph = build_graph(nasnet_like(1000))
    plan = planned(graph, allocator="exact")
    verify(plan)
    reduced = reduce_dependencies(find_dependencies(graph))
    # On one device each stream is a path: nodes - streams edges lie inside.
    assert plan.n_waits == sum(map(len, reduced)) - (len(graph.nodes) - len(plan.streams))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mode": "fast"}, r"mode='fast': expected serial \| streams"),
        ({"allocator": "best"}, r"allocator='best': expected cost \| exact"),
        ({"max_streams": 0}, "max_streams=0: expected at least 1"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(PlanError, match=text):
        planned(build_graph(dag_net({}, 1)), **options)


def test_tiny_branches_on_two_devices_share_one_stream_on_each() -> None:
    net = AsyncNet("tiny")
    x = net.input("x", (8,))
    outs = []
    for device in (0, 1):
        with net.device(device):
            outs += [mix(net, mix(net, x, flops=10.0), flops=10.0) for _ in range(4)]
    net.output(*outs)
    plan = planned(place(build_graph(net)), model=CPU_LIKE)
    assert [s.device for s in plan.streams if s.kind == "compute"] == [0, 1]
