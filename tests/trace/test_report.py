"""Why is there no overlap? A net for each cause, and the report names it.

What a machine does by itself (waking threads, Python's lock) is run for real, with losses so large
that other processes cannot hide them. What needs a device is simulated, or its times are made up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.backends.base import Execution, HostSlice, ProgramOptions, Slice
from asyncnet_gpu.backends.sim import GPU, SimBackend
from asyncnet_gpu.graph import build_graph
from asyncnet_gpu.passes import run_passes
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.report import Report, report_timeline
from asyncnet_gpu.report import diagnosis as kinds
from asyncnet_gpu.timeline import Timeline

MILLION = (1 << 20,)
QUARTER = (1 << 18,)
CPU = DeviceModel(
    30e9, 6e9, 1e-6, 1e-6, 60e-6, 6e9, lanes=2, threads=True, shortest_unlocked_s=60e-6
)


def branches(
    n_branches: int, length: int, shape: tuple[int, ...], op: str = "sigmoid"
) -> ag.AsyncNet:
    net = ag.AsyncNet("branches")
    x = net.input("x", shape, "float32")
    weights = net.parameter("w", np.eye(shape[-1], dtype=np.float32)) if op == "matmul" else None
    for b in range(n_branches):
        h = x
        for i in range(length):
            more = [] if weights is None else [weights]
            h = getattr(net, op)(h, *more, name=f"b{b}.{i}")
        net.output(h)
    return net


def ladder(rungs: int, shape: tuple[int, ...]) -> ag.AsyncNet:
    net = ag.AsyncNet("ladder")
    h = net.input("x", shape, "float32")
    for _ in range(rungs):
        h = net.add(net.sigmoid(h), net.tanh(h))
    net.output(h)
    return net


def make(net: ag.AsyncNet, model: DeviceModel, kind: str = "sim", **options: Any) -> Plan:
    graph = place(run_passes(build_graph(net)))
    return make_plan(graph, device_kind=kind, model=model, **options)


def simulated(plan: Plan, model: DeviceModel, untraced_s: float | None = None) -> Report:
    execution = Execution({}, slices=[])
    SimBackend(model).program(plan, {}, ProgramOptions()).execute(execution, None)
    timeline = Timeline(plan, model)
    timeline.add(0, execution)
    return report_timeline(timeline, untraced_s=untraced_s)


def made_up(
    plan: Plan, model: DeviceModel, seconds: Callable[[int], float], cpu_share: float = 1.0
) -> Timeline:
    """Return a run in which every step takes `seconds` and starts when it may."""
    recorder = {s.records: i for i, s in enumerate(plan.steps) if s.records is not None}
    last: dict[int, int] = {}
    ends: list[float] = []
    execution = Execution({}, slices=[])
    for index, step in enumerate(plan.steps):
        before = [recorder[event] for event in step.waits]
        before += [last[step.stream]] if step.stream in last else []
        start = max([ends[i] for i in before], default=0.0)
        ends.append(start + seconds(index))
        last[step.stream] = index
        assert execution.slices is not None
        execution.slices.append(Slice(index, start, ends[-1]))
        cpu_s = cpu_share * seconds(index)
        execution.host.append(HostSlice("thread", "run", index, start, ends[-1], cpu_s))
    timeline = Timeline(plan, model)
    timeline.add(0, execution)
    return timeline


def run_report(net: ag.AsyncNet, *, rounds: int = 60, **options: Any) -> Report:
    with net.compile(backend="cpu", **options) as exe:
        return exe.report(rounds=rounds)  # the fastest counts: one that nobody interrupted


# -- measured on this machine --------------------------------------------------------------------


def test_a_chain_is_limited_by_its_dependencies() -> None:
    report = run_report(branches(1, 6, (256, 256), "matmul"), mode="streams")
    assert report.limit.kind == kinds.DEPENDENCY
    assert report.ratio == pytest.approx(1.0)
    assert [step.name for step in report.path] == [f"b0.{i}" for i in range(6)]
    assert "slots=" in report.limit.remedy


def test_one_stream_for_independent_branches_is_too_few() -> None:
    report = run_report(branches(4, 2, QUARTER), mode="serial")
    assert report.limit.kind == kinds.STREAMS
    assert report.ratio > 2
    assert 'mode="streams"' in report.limit.remedy


def test_tiny_steps_on_many_threads_are_limited_by_waking_them() -> None:
    report = run_report(ladder(40, (16,)), mode="streams", allocator="exact")
    assert len(report.streams) > 1
    assert report.limit.kind == kinds.HANDOFF


def test_functions_in_python_hold_the_lock() -> None:
    def spin(xp: Any, image: Any, out: Any) -> None:
        until = time.thread_time() + 2e-3
        while time.thread_time() < until:
            pass
        out[...] = image

    net = ag.AsyncNet("spin")
    x = net.input("x", (8,), "float32")
    for branch in "ab":
        h = x
        for i in range(3):
            h = net.call(spin, h, shape=(8,), dtype="float32", name=f"{branch}{i}")
        net.output(h)
    report = run_report(net, rounds=15, mode="streams", allocator="exact")
    assert len(report.streams) == 2
    assert report.limit.kind == kinds.GIL
    assert "release the lock" in report.limit.remedy


# -- on a model of a device ----------------------------------------------------------------------


def test_a_slow_host() -> None:
    plan = make(branches(4, 10, (64,)), GPU)
    report = simulated(plan, replace(GPU, launch_s=50e-6))
    assert report.limit.kind == kinds.LAUNCH
    assert "graph" in report.limit.remedy


def test_a_device_that_one_kernel_fills() -> None:
    plan = make(branches(4, 3, MILLION), GPU)
    assert len(plan.streams) == 4
    report = simulated(plan, replace(GPU, lanes=1))
    assert report.limit.kind == kinds.FULL
    assert simulated(plan, GPU).limit.kind != kinds.FULL


def test_what_tracing_costs_the_host_is_not_counted() -> None:
    plan = make(branches(4, 10, (64,)), GPU)
    slow = replace(GPU, launch_s=50e-6)
    traced = simulated(plan, slow)
    lost_s = next(c.lost_s for c in traced.causes if c.kind == kinds.LAUNCH)
    without = simulated(plan, slow, untraced_s=traced.elapsed_s - 0.5 * lost_s)
    assert next(c.lost_s for c in without.causes if c.kind == kinds.LAUNCH) == pytest.approx(
        0.5 * lost_s
    )
    assert without.achieved > traced.achieved
    assert kinds.LAUNCH not in {c.kind for c in simulated(plan, slow, untraced_s=0.0).causes}


def test_copies_between_devices() -> None:
    net = ag.AsyncNet("copies")
    h = net.input("x", MILLION, "float32")
    for i in range(6):
        with net.device(i % 2):
            h = net.relu(h, name=f"r{i}")
    net.output(h)
    report = simulated(make(net, GPU), GPU)
    assert report.limit.kind == kinds.COPY
    assert any(stream.kind == "copy" for stream in report.streams)


def test_too_few_streams_by_option() -> None:
    plan = make(branches(4, 3, MILLION), GPU, max_streams=2)
    report = simulated(plan, GPU)
    assert report.limit.kind == kinds.STREAMS
    assert "max_streams" in report.limit.remedy


def test_the_planner_keeps_one_stream_because_hand_overs_are_dear() -> None:
    plan = make(ladder(20, (1 << 16,)), CPU, "cpu")
    assert len(plan.streams) == 1
    report = made_up(plan, CPU, lambda _: 30e-6).report()
    assert report.limit.kind == kinds.HANDOFF
    assert "keeps one stream" in report.limit.evidence


def test_the_planner_keeps_one_stream_because_of_pythons_lock() -> None:
    net = ag.AsyncNet("recurrent")
    x = net.input("x", (4, 1, 8), "float32")
    weights = net.constant(np.zeros((1, 32, 8), np.float32))
    bias = net.constant(np.zeros((1, 64), np.float32))
    state = net.constant(np.zeros((1, 1, 8), np.float32))
    for branch in "ab":
        h, *_ = net.lstm(x, weights, weights, bias, state, state, name=branch)
        net.output(h)
    plan = make(net, CPU, "cpu")
    assert len(plan.streams) == 1
    report = made_up(plan, CPU, lambda _: 1e-3).report()
    assert report.limit.kind == kinds.GIL


# -- with times made up --------------------------------------------------------------------------


def slowed(net: ag.AsyncNet, cpu_share: float = 1.0, model: DeviceModel = CPU) -> Report:
    """Return the report of a run in which each step takes twice as long as alone."""
    plan = make(net, model, "cpu", allocator="exact")
    assert len(plan.streams) > 1
    timeline = made_up(plan, model, lambda _: 2e-3, cpu_share)
    return report_timeline(timeline, {node.id: 1e-3 for node in plan.graph.nodes})


def test_steps_that_share_the_bandwidth() -> None:
    report = slowed(branches(2, 5, MILLION))
    assert report.limit.kind == kinds.BANDWIDTH
    assert "2.00 times as long as alone" in report.limit.evidence


def test_steps_that_need_all_cores() -> None:
    assert slowed(branches(2, 5, (512, 512), "matmul")).limit.kind == kinds.FULL


def test_steps_whose_cores_others_have_taken() -> None:
    assert slowed(branches(2, 5, MILLION), cpu_share=0.4).limit.kind == kinds.FULL


def test_full_overlap_has_no_limit() -> None:
    plan = make(branches(2, 5, MILLION), CPU, "cpu", allocator="exact")
    report = made_up(plan, CPU, lambda _: 1e-3).report()
    assert report.limit.kind == kinds.NONE
    assert report.achieved == pytest.approx(2.0)
    assert report.possible == pytest.approx(2.0)


def test_numbers_of_a_run_that_can_be_counted_by_hand() -> None:
    net = ag.AsyncNet("diamond")
    x = net.input("x", (4,), "float32")
    a = net.relu(x, name="a")
    b, c = net.tanh(a, name="b"), net.sigmoid(a, name="c")
    net.output(net.add(b, c, name="d"))
    plan = make(net, CPU, "cpu", allocator="exact")
    wanted = {"a": 1e-3, "b": 2e-3, "c": 3e-3, "d": 1e-3}
    names = [plan.node_of(step).name for step in plan.steps]
    report = made_up(plan, CPU, lambda i: wanted[names[i]]).report()
    assert report.work_s == pytest.approx(7e-3)
    assert report.span_s == report.elapsed_s == pytest.approx(5e-3)
    assert [step.name for step in report.path] == ["a", "c", "d"]
    assert sum(stream.busy_s for stream in report.streams) == pytest.approx(7e-3)


# -- what people get -----------------------------------------------------------------------------


def check_consistent(report: Report) -> None:
    assert report.span_s <= report.work_s * (1 + 1e-9)
    assert sum(step.seconds + step.gap_s for step in report.path) <= report.elapsed_s * 1.001
    assert all(0 <= cause.lost_s <= report.elapsed_s * 1.001 for cause in report.causes)
    losses = [cause.lost_s for cause in report.causes]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("mode", ["serial", "streams", "auto"])
def test_text_and_data_of_a_real_run(mode: str) -> None:
    net = branches(3, 2, (64, 64), "matmul")
    x = np.ones((64, 64), np.float32)
    with net.compile(backend="cpu", mode=mode) as exe:
        before = exe.run(x=x)
        report = exe.report(x=x, rounds=3)
        after = exe.run(x=x)
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key])
    check_consistent(report)
    text = str(report)
    for step in report.path:
        assert step.name in text
    assert f"first limit: {report.limit.kind}" in text
    data: Mapping[str, Any] = json.loads(json.dumps(report.to_dict()))
    assert data["causes"][0]["kind"] == report.limit.kind
    assert len(data["path"]) == len(report.path)
    assert data["n_runs"] == 3
    assert data["untraced_s"] > 0
    assert "without tracing" in text


def test_a_long_path_is_shortened_in_the_middle() -> None:
    plan = make(branches(1, 40, (8,)), CPU, "cpu")
    text = str(made_up(plan, CPU, lambda _: 1e-3).report())
    assert "... 28 more ..." in text


def test_without_a_traced_run_there_is_nothing_to_report() -> None:
    with branches(2, 2, (8,)).compile(backend="cpu") as exe, exe.trace() as timeline:
        pass
    with pytest.raises(ag.NetError, match=r"\[report\] nothing was traced"):
        timeline.report()


def test_example_inputs_fit_every_dtype() -> None:
    net = ag.AsyncNet("inputs")
    net.output(net.add(net.input("a", (3,), "float64"), net.input("b", (3,), "float64")))
    net.output(net.logical_and(net.input("c", (2,), "bool"), net.input("d", (2,), "bool")))
    net.output(net.relu(net.input("e", (), "float16")))
    with net.compile(backend="cpu") as exe:
        check_consistent(exe.report(rounds=1))


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["streams", "graph"])
def test_on_cuda(mode: str) -> None:
    with branches(3, 2, (64, 64), "matmul").compile(backend="cuda", mode=mode) as exe:
        report = exe.report(rounds=2)
    assert report.measured
    check_consistent(report)
    assert report.untraced_s is not None
    assert mode != "graph" or kinds.LAUNCH not in {cause.kind for cause in report.causes}
    assert len(report.streams) == len({step.stream for step in exe.plan.steps})
