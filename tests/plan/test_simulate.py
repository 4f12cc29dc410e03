"""The simulator on nets small enough to be computed by hand: a unit of work takes a second."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers.nets import MIX, mix, nasnet_like, random_net
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncnet_gpu as ag
from asyncnet_gpu.backends.sim import Simulation, simulate
from asyncnet_gpu.graph import build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.ops.base import Cost
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.cost import DeviceModel

UNIT = DeviceModel(
    flops_per_s=1.0, bytes_per_s=1e30, launch_s=0.0, fixed_s=0.0, handoff_s=0.0,
    copy_bytes_per_s=1.0, lanes=4,
)  # fmt: skip

LOCKED = replace(
    MIX, name="locked", cost=lambda ins, outs, attrs: Cost(attrs["flops"], 0.0, gil=True)
)


def play(net: AsyncNet, model: DeviceModel = UNIT, **options: Any) -> Simulation:
    options = {"mode": "streams", "allocator": "exact", "alignment": 64, **options}
    plan = make_plan(place(build_graph(net)), device_kind="sim", model=UNIT, **options)
    return simulate(plan, model)


def start_of(simulation: Simulation, name: str) -> float:
    plan = simulation.plan
    index = next(i for i, s in enumerate(plan.steps) if plan.node_of(s).name == name)
    return simulation.starts_s[index]


def diamond() -> AsyncNet:
    """h (2 s), then a (3 s) and b (5 s) side by side, then y (1 s)."""
    net = AsyncNet("diamond")
    h = mix(net, net.input("x", (4,)), flops=2.0, name="h")
    a = mix(net, h, flops=3.0, name="a")
    b = mix(net, h, flops=5.0, name="b")
    net.output(mix(net, a, b, flops=1.0, name="y"))
    return net


def test_a_diamond() -> None:
    found = play(diamond())
    assert found.makespan_s == 8.0
    assert found.work_s == 11.0
    assert found.critical_names == ("h", "b", "y")
    assert (start_of(found, "a"), start_of(found, "b"), start_of(found, "y")) == (2.0, 2.0, 7.0)
    assert sorted(found.busy_s) == [3.0, 8.0]
    assert sorted(found.utilisation) == [3 / 8, 1.0]


def test_a_diamond_in_one_stream() -> None:
    found = play(diamond(), mode="serial")
    assert found.makespan_s == found.work_s == 11.0
    assert found.utilisation == (1.0,)
    assert found.critical_names == ("h", "a", "b", "y")


def test_a_hand_over_costs_those_who_change_stream() -> None:
    found = play(diamond(), replace(UNIT, handoff_s=0.5))
    # h -> b -> y is one stream; a is handed over to and y waits for it, but not for long.
    assert start_of(found, "b") == 2.0
    assert start_of(found, "a") == 2.5
    assert found.makespan_s == 8.0
    assert play(diamond(), replace(UNIT, handoff_s=2.0)).makespan_s == 2 + 2 + 3 + 2 + 1


def test_the_host_issues_one_step_after_the_other() -> None:
    net = AsyncNet("wide")
    x = net.input("x", (4,))
    net.output(*[mix(net, x, flops=1.0) for _ in range(4)])
    found = play(net, replace(UNIT, launch_s=10.0))
    assert found.starts_s == (10.0, 20.0, 30.0, 40.0)
    assert found.makespan_s == 41.0
    assert len(found.critical_path) == 1  # nothing but the host holds the last one back


def test_a_recorded_graph_costs_the_host_nothing_per_step() -> None:
    model = replace(UNIT, launch_s=10.0, replay_launch_s=0.0)
    assert play(diamond(), model, mode="graph").makespan_s == 8.0
    assert play(diamond(), model, mode="graph-serial").makespan_s == 11.0
    assert play(diamond(), model, mode="serial").makespan_s == 41.0


def test_more_streams_than_lanes_queue_up() -> None:
    net = AsyncNet("wide")
    x = net.input("x", (4,))
    net.output(*[mix(net, x, flops=1.0) for _ in range(6)])
    for lanes, makespan_s in ((1, 6.0), (2, 3.0), (4, 2.0), (6, 1.0)):
        assert play(net, replace(UNIT, lanes=lanes)).makespan_s == makespan_s


def test_copies_take_their_bytes_beside_the_lanes() -> None:
    net = AsyncNet("copies")
    x = net.input("x", (4,))  # 16 bytes, 16 seconds
    with net.device(1):
        c = mix(net, x, flops=1.0, name="c")
        d = mix(net, flops=10.0, name="d")
    net.output(c, d)
    found = play(net, replace(UNIT, lanes=1))
    assert start_of(found, "x@1") == start_of(found, "d") == 0.0
    assert start_of(found, "c") == 16.0
    assert found.makespan_s == 17.0
    assert found.critical_names == ("x@1", "c")


def test_devices_work_side_by_side() -> None:
    net = AsyncNet("devices")
    for device in range(8):
        with net.device(device):
            net.output(mix(net, flops=4.0, name=f"n{device}"))
    found = play(net, replace(UNIT, lanes=1))
    assert found.makespan_s == 4.0
    assert found.utilisation == (1.0,) * 8


def test_the_lock_of_python_is_held_by_one_thread_at_a_time() -> None:
    net = AsyncNet("locked")
    x = net.input("x", (4,))
    outs = [net.add_node(LOCKED, (x,), {"flops": 2.0}, name=f"l{i}")[0] for i in range(3)]
    net.output(*outs, mix(net, x, flops=5.0, name="free"))
    assert play(net).makespan_s == 5.0
    threads = play(net, replace(UNIT, threads=True))
    assert threads.makespan_s == 6.0
    assert threads.critical_names == ("l0", "l1", "l2")


def test_barriers_take_no_time_and_lie_on_the_path() -> None:
    net = AsyncNet("barrier")
    x = net.input("x", (4,))
    a, b = mix(net, x, flops=1.0, name="a"), mix(net, x, flops=4.0, name="b")
    net.barrier(a, b, name="both")
    net.output(mix(net, a, flops=1.0, name="y"))
    found = play(net)
    assert found.makespan_s == 5.0
    assert found.critical_names == ("b", "both", "y")


def test_a_plan_without_steps_takes_no_time() -> None:
    net = AsyncNet("empty")
    x = net.input("x", (4,))
    net.output(x)
    found = play(net)
    assert (found.makespan_s, found.critical_path) == (0.0, ())


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 40), devices=st.integers(1, 3))
def test_bounds_and_the_critical_path_of_random_plans(seed: int, n: int, devices: int) -> None:
    model = replace(UNIT, handoff_s=0.25, launch_s=0.125, fixed_s=1.0, flops_per_s=1e6)
    found = play(random_net(seed, n, devices), model)
    assert found.makespan_s <= found.work_s + len(found.starts_s) * 0.375 + 1e-9
    assert all(0 <= u <= 1 + 1e-9 for u in found.utilisation)
    assert sum(found.busy_s) == pytest.approx(found.work_s)
    path = found.critical_path
    if path:
        assert found.ends_s[path[-1]] == found.makespan_s
    for before, then in pairwise(path):
        assert found.ends_s[before] <= found.starts_s[then] + 1e-9


def test_the_backend_gives_zeros_and_the_times_of_the_simulation() -> None:
    net = ag.AsyncNet("sim")
    x = net.input("x", (4, 8), "float32")
    h = net.relu(x, name="h")
    ready = net.barrier(h, name="ready")
    net.output(net.add(h, 1.0, name="y"))
    with net.compile(backend="sim", mode="streams") as exe:
        with exe.trace() as timeline:
            run = exe.submit(x=np.ones((4, 8), np.float32))
            ready.wait(run, timeout_s=1)
            y = run.result(1)["y"]
        assert (y.shape, y.dtype.name, y.any()) == ((4, 8), "float32", np.False_)
        times = [(s.start_s, s.end_s) for s in timeline.runs[0].slices]
        found = simulate(exe.plan)
        assert times == list(zip(found.starts_s, found.ends_s, strict=True))


def test_streams_never_look_slower_than_serial_in_the_plan_that_is_chosen() -> None:
    graph = build_graph(nasnet_like(300))
    model = replace(UNIT, flops_per_s=1e12, fixed_s=3e-6, launch_s=1e-6, handoff_s=2e-6)
    spans = {
        mode: simulate(
            make_plan(graph, device_kind="sim", model=model, mode=mode), model
        ).makespan_s
        for mode in ("serial", "streams")
    }
    assert spans["streams"] <= spans["serial"]
