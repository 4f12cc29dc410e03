"""What the allocators know about time: launches, Python's lock, priorities, order of issue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from helpers.nets import CPU_LIKE, CUDA_LIKE, MIX, mix, random_net
from helpers.plan_checker import check_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet_gpu.graph import Graph, build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.ops.base import Cost
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.verify import verify

#: Holds Python's lock for as long as it works.
LOCKED = replace(
    MIX, name="locked", cost=lambda ins, outs, attrs: Cost(attrs["flops"], 0.0, gil=True)
)


def planned(graph: Graph, **options: Any) -> Plan:
    options = {"device_kind": "cpu", "model": CUDA_LIKE, "alignment": 64, **options}
    plan = make_plan(graph, **options)
    verify(plan)
    return plan


def branches(n: int, length: int, op: Any = MIX, flops: float = 1e9) -> AsyncNet:
    net = AsyncNet("branches")
    x = net.input("x", (8,))
    for branch in range(n):
        blob = x
        for i in range(length):
            (blob,) = net.add_node(op, (blob,), {"flops": flops}, name=f"{op.name}{branch}_{i}")
        net.output(blob)
    return net


def test_steps_that_hold_the_lock_stay_on_one_thread() -> None:
    graph = build_graph(branches(4, 5, LOCKED))
    assert len(planned(graph, model=CPU_LIKE).streams) == 1
    # Without threads the lock is nobody's matter.
    assert len(planned(graph, model=replace(CPU_LIKE, threads=False)).streams) == 2


def test_steps_that_hold_the_lock_share_a_stream_beside_others_that_do_not() -> None:
    net = branches(2, 4, LOCKED)
    free = net.blob("x")
    for i in range(8):
        (free,) = net.add_node(MIX, (free,), {"flops": 1e9}, name=f"free{i}")
    net.output(free)
    plan = planned(build_graph(net), model=CPU_LIKE)
    streams: dict[str, set[int]] = {}
    for step in plan.steps:
        streams.setdefault(plan.node_of(step).op.name, set()).add(step.stream)
    assert len(streams["locked"]) == 1
    assert len(streams["mix"]) == 1
    assert streams["locked"] != streams["mix"]


def test_streams_end_where_the_host_cannot_issue_faster() -> None:
    # A step takes 3 us of the device and 1.5 us of the host: a third stream would only wait.
    graph = build_graph(branches(8, 20, flops=0.0))
    assert len(planned(graph, model=CUDA_LIKE).streams) <= 3
    assert len(planned(graph, model=replace(CUDA_LIKE, launch_s=0.0)).streams) == 8
    slow = replace(CUDA_LIKE, launch_s=10e-6)
    assert len(planned(graph, model=slow).streams) == 1


def test_a_recorded_graph_is_not_held_back_by_the_host() -> None:
    graph = build_graph(branches(8, 20, flops=0.0))
    model = replace(CUDA_LIKE, launch_s=10e-6, replay_launch_s=0.0)
    assert len(planned(graph, model=model).streams) == 1
    assert len(planned(graph, model=model, mode="graph").streams) == 8


@pytest.mark.parametrize("allocator", ["cost", "exact"])
def test_the_longest_path_is_issued_first_on_the_most_urgent_stream(allocator: str) -> None:
    net = AsyncNet("urgent")
    x = net.input("x", (8,))
    short = mix(net, x, flops=1e9, name="short")
    long = mix(net, x, flops=1e9, name="long")
    for i in range(3):
        long = mix(net, long, flops=1e9, name=f"long{i}")
    net.output(short, long)
    plan = planned(build_graph(net), allocator=allocator)
    streams = {plan.node_of(s).name: plan.streams[s.stream] for s in plan.steps}
    assert streams["long"].priority == 0
    assert streams["short"].priority == 1
    names = [plan.node_of(s).name for s in plan.steps]
    assert names.index("long") < names.index("short")


def test_priorities_of_exact_plans_are_all_different_and_follow_the_longest_path() -> None:
    plan = planned(build_graph(random_net(5, 60)), allocator="exact")
    assert sorted(s.priority for s in plan.streams) == list(range(len(plan.streams)))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), n=st.integers(5, 40), limit=st.integers(1, 4))
def test_limited_exact_plans_have_one_stream_for_what_a_device_receives(
    seed: int, n: int, limit: int
) -> None:
    graph = place(build_graph(random_net(seed, n, 3)))
    plan = planned(graph, allocator="exact", max_streams=limit)
    assert not check_plan(plan.to_dict()).redundant
    for device in range(3):
        kinds = [s.kind for s in plan.streams if s.device == device]
        assert kinds.count("copy") <= 1
        assert kinds.count("compute") <= limit


def test_unlimited_exact_plans_give_independent_copies_streams_of_their_own() -> None:
    net = AsyncNet("copies")
    inputs = [net.input(f"x{i}", (8,)) for i in range(3)]
    with net.device(1):
        net.output(*[mix(net, x, name=f"y_{x.name}") for x in inputs])
    kinds = [s.kind for s in planned(place(build_graph(net)), allocator="exact").streams]
    assert kinds.count("copy") == 3


def test_the_order_of_issue_is_topological_where_steps_take_no_time() -> None:
    # Every start and every rank is then equal.
    nothing = replace(CUDA_LIKE, fixed_s=0.0, launch_s=0.0, flops_per_s=1e300, handoff_s=0.0)
    for seed in range(20):
        planned(place(build_graph(random_net(seed, 30, 2))), model=nothing, allocator="exact")
