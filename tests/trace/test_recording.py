"""What is noted of runs: also of those that fail, are cancelled or marked for a profiler."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import nvtx
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.backends.base import HostSlice, Slice
from asyncnet_gpu.timeline import Timeline, TracedRun
from asyncnet_gpu.trace.memory import live_bytes
from asyncnet_gpu.trace.path import Link, critical_path

X = np.linspace(-1, 1, 4096, dtype=np.float32).reshape(64, 64)
BACKENDS = [pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)]
Function = Callable[..., None]


def fork(fail: bool = False, wait: threading.Event | None = None) -> ag.AsyncNet:
    """Two branches and their sum; the function in one of them may raise, or wait."""

    def copy(xp: Any, x: Any, out: Any) -> None:
        if wait is not None:
            assert wait.wait(20)
        if fail:
            raise ValueError("as asked")
        out[...] = x

    net = ag.AsyncNet("fork")
    x = net.input("x", (64, 64), "float32")
    left = net.relu(net.call(copy, x, shape=(64, 64), dtype="float32", name="call"), name="after")
    right = net.softmax(net.matmul(x, x, name="product"), name="beside")
    net.output(net.add(left, right, name="sum"))
    return net


def names(timeline: Timeline, run: TracedRun) -> set[str]:
    steps = timeline.plan.steps
    return {timeline.plan.node_of(steps[part.step]).name for part in run.slices}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["serial", "streams"])
def test_tracing_changes_no_bit_and_ends_with_its_context(backend: str, mode: str) -> None:
    with fork().compile(backend=backend, mode=mode, allocator="exact") as exe:
        plain = ag.to_numpy(exe.run(x=X)["sum"])
        with exe.trace(cpu_times=True) as timeline:
            np.testing.assert_array_equal(ag.to_numpy(exe.run(x=X)["sum"]), plain)
        np.testing.assert_array_equal(ag.to_numpy(exe.run(x=X)["sum"]), plain)
    assert len(timeline.runs) == 1
    assert len(timeline.runs[0].slices) == len(timeline.plan.steps)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_failed_run_leaves_the_steps_that_ran(backend: str) -> None:
    with (
        fork(fail=True).compile(backend=backend, mode="streams", allocator="exact") as exe,
        exe.trace() as timeline,
        pytest.raises(ValueError, match="as asked"),
    ):
        exe.run(x=X)
    (run,) = timeline.runs
    ran = names(timeline, run)
    assert ran <= {"product", "beside"}
    assert "sum" not in ran
    events = [e for e in timeline.to_chrome()["traceEvents"] if e["ph"] == "X"]
    assert {event["name"] for event in events} == ran
    timeline.to_html()
    assert all(
        live >= 0 for points in live_bytes(timeline.plan, run).values() for _, live in points
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cancelled_run_can_be_shown(backend: str) -> None:
    gate = threading.Event()
    with (
        fork(wait=gate).compile(backend=backend, mode="streams", allocator="exact") as exe,
        exe.trace() as timeline,
    ):
        run = exe.submit(x=X)
        run.cancel()
        gate.set()
        with pytest.raises(ag.RunCancelled):
            run.result(20)
    assert "sum" not in names(timeline, timeline.runs[0])
    timeline.to_chrome()
    timeline.to_html()


@pytest.mark.parametrize("cpu_times", [False, True])
def test_time_on_a_core_is_noted_on_request_only(cpu_times: bool) -> None:
    with (
        fork().compile(backend="cpu", mode="streams", allocator="exact") as exe,
        exe.trace(cpu_times=cpu_times) as timeline,
    ):
        exe.run(x=X)
    (run,) = timeline.runs
    assert {part.what for part in run.host} == {"run", "wait"}
    for part in run.host:
        assert (part.cpu_s is not None) == cpu_times
        assert part.cpu_s is None or 0 <= part.cpu_s <= part.end_s - part.start_s


def test_a_trace_inside_a_trace_sees_its_own_runs() -> None:
    with fork().compile(backend="cpu") as exe:
        with exe.trace() as outer:
            exe.run(x=X)
            with exe.trace() as inner:
                exe.run(x=X)
            exe.run(x=X)
        exe.run(x=X)
    assert (len(outer.runs), len(inner.runs)) == (2, 1)


class Ranges:
    """Stands in for NVTX: what is open in each thread, and everything that was opened."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.open: dict[int, int] = {}

    def push(self, message: str, domain: str) -> None:
        assert domain == "asyncnet"
        self.opened.append(message)
        self.open[threading.get_ident()] = self.open.get(threading.get_ident(), 0) + 1

    def pop(self, domain: str) -> None:
        self.open[threading.get_ident()] -= 1
        assert self.open[threading.get_ident()] >= 0


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> Ranges:
    made = Ranges()
    monkeypatch.setattr(nvtx, "push_range", made.push)
    monkeypatch.setattr(nvtx, "pop_range", made.pop)
    return made


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["serial", "streams", "graph"])
def test_every_step_has_a_range_and_each_is_closed(backend: str, mode: str, ranges: Ranges) -> None:
    with fork().compile(backend=backend, mode=mode) as exe:
        with exe.trace(nvtx=True) as timeline:
            exe.run(x=X)
            exe.submit(x=X).result(20)
        exe.run(x=X)  # no longer traced
    wanted = sorted(f"{n.op.kind} {n.name}" for n in timeline.plan.graph.nodes)
    assert sorted(ranges.opened) == sorted(2 * wanted)
    assert set(ranges.open.values()) == {0}


@pytest.mark.parametrize("backend", BACKENDS)
def test_ranges_are_closed_when_a_step_fails(backend: str, ranges: Ranges) -> None:
    with (
        fork(fail=True).compile(backend=backend, mode="streams") as exe,
        exe.trace(nvtx=True),
        pytest.raises(ValueError, match="as asked"),
    ):
        exe.run(x=X)
    assert ranges.opened
    assert set(ranges.open.values()) == {0}


def test_real_nvtx_without_a_profiler_does_no_harm() -> None:
    with fork().compile(backend="cpu", mode="streams") as exe, exe.trace(nvtx=True) as timeline:
        exe.run(x=X)
    assert len(timeline.runs[0].slices) == len(timeline.plan.steps)


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nvtx", None)
    with fork().compile(backend="cpu") as exe:
        with pytest.raises(ag.NetError, match="pip install nvtx"), exe.trace(nvtx=True):
            pass
        exe.run(x=X)


# -- the path, with times made up -----------------------------------------------------------------


def diamond() -> ag.Plan:
    net = ag.AsyncNet("diamond")
    x = net.input("x", (64, 64), "float32")
    a = net.matmul(x, x, name="a")
    b, c = net.matmul(a, x, name="b"), net.softmax(a, name="c")
    net.output(net.add(b, c, name="d"))
    with net.compile(backend="cpu", mode="streams", allocator="exact") as exe:
        return exe.plan


def traced(
    plan: ag.Plan, spans: dict[str, tuple[float, float]], issued: dict[str, float]
) -> tuple[TracedRun, dict[str, int]]:
    step_of = {plan.node_of(step).name: i for i, step in enumerate(plan.steps)}
    slices = tuple(Slice(step_of[name], *span) for name, span in spans.items())
    host = tuple(HostSlice("t", "issue", step_of[n], e - 0.5, e) for n, e in issued.items())
    return TracedRun(0, 0.0, slices, host), step_of


def links(plan: ag.Plan, run: TracedRun) -> dict[str, Link]:
    path = critical_path(plan, run)
    return {plan.node_of(plan.steps[link.step]).name: link for link in path}


def test_gaps_on_a_device_are_told_apart() -> None:
    plan = diamond()
    spans = {"a": (1.0, 2.0), "b": (3.0, 5.0), "c": (2.5, 3.0), "d": (6.0, 7.0)}
    run, step_of = traced(plan, spans, {"a": 1.0, "b": 2.6, "c": 1.5, "d": 2.7})
    path = links(plan, run)
    assert list(path) == ["a", "b", "d"]
    assert (path["a"].by, path["a"].host_s, path["a"].queued_s) == ("start", 1.0, 0.0)
    assert path["b"].before == step_of["a"]
    assert path["b"].host_s == pytest.approx(0.6)  # issued 0.6 after its predecessor ended
    late = path["b"].handoff_s if path["b"].by == "wait" else path["b"].queued_s
    assert late == pytest.approx(0.4)
    assert path["d"].host_s == 0.0
    assert sum(link.gap_s for link in path.values()) == pytest.approx(1.0 + 1.0 + 1.0)


def test_a_step_that_never_ran_is_not_on_the_path() -> None:
    plan = diamond()
    run, _ = traced(plan, {"a": (0.0, 1.0), "c": (1.5, 2.0)}, {})
    assert list(links(plan, run)) == ["a", "c"]
    assert critical_path(plan, TracedRun(0, 0.0, ())) == ()


def test_clocks_of_two_devices_may_disagree() -> None:
    plan = diamond()
    spans = {"a": (0.0, 2.0), "b": (1.9, 3.0), "c": (1.8, 2.5), "d": (3.1, 4.0)}
    run, _ = traced(plan, spans, {})
    assert all(link.gap_s >= 0 for link in links(plan, run).values())


def test_live_bytes_by_hand() -> None:
    plan = diamond()
    spans = {"a": (0.0, 1.0), "b": (1.0, 2.0), "c": (1.0, 3.0), "d": (3.0, 4.0)}
    run, _ = traced(plan, spans, {})
    one = 64 * 64 * 4
    points = live_bytes(plan, run)[0]
    assert points[0] == (0.0, one)
    assert dict(points)[1.0] == 3 * one  # a is still read, b and c are being written
    assert points[-1] == (4.0, 0)
