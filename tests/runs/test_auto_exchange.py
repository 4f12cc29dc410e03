"""`mode="auto"` exchanges the engines of its modes: what else may happen at that moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from helpers.threads import in_thread

import asyncnet_gpu as ag
from asyncnet_gpu.auto import Chooser
from asyncnet_gpu.profiling import RUNS, Remade

X = np.ones(4, np.float32)


class Gate:
    """An operator that takes a while, and waits for the test when it is shut."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.before: Callable[[], object] = lambda: None
        self.open.set()

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        self.entered.set()
        self.before()
        assert self.open.wait(30)
        time.sleep(0.002)
        out[...] = a + 1

    def shut(self) -> None:
        self.entered.clear()
        self.open.clear()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def net_of(gate: Gate) -> ag.AsyncNet:
    """Two modes from the start: streams, as the model believes, and serial."""
    net = ag.AsyncNet("exchanged")
    x = net.input("x", (4,), "float32")
    big = net.parameter("big", np.ones((512, 512), np.float32))
    for i in range(2):
        net.output(**{f"y{i}": net.call(gate, x, shape=4, dtype="float32", name=f"gate{i}")})
    for side in "ab":
        net.output(**{side: net.matmul(net.matmul(big, big), big)})
    return net


@pytest.fixture
def exe(gate: Gate) -> Iterator[ag.Executable]:
    """Before the last profiled run, at the end of which modes are planned anew."""
    with net_of(gate).compile(backend="cpu", slots=2, timeout_s=60) as exe:
        assert list(exe._engines) == ["serial", "streams"]
        assert exe.mode == "streams"
        for _ in range(RUNS - 1):
            exe.run(x=X)
        assert exe._chooser.to_profile == 1
        yield exe


def until_decided(exe: ag.Executable) -> None:
    for _ in range(100):
        if exe._chooser.decided:
            return
        exe.run(x=X)
    raise AssertionError("auto never decides")


def another_schedule(monkeypatch: pytest.MonkeyPatch, exe: ag.Executable) -> None:
    """Have every mode be planned otherwise, so that its engine is exchanged."""
    monkeypatch.setattr("asyncnet_gpu.executor.same_schedule", lambda first, second: False)


def test_submitting_does_not_wait_for_a_profiled_run_nor_spoil_it(
    exe: ag.Executable, gate: Gate
) -> None:
    gate.shut()
    thread, results = in_thread(lambda: exe.run(x=X))
    assert gate.entered.wait(10)
    other, submitted = in_thread(lambda: [exe.submit(x=X) for _ in range(6)])
    other.join(10)
    assert not other.is_alive(), "submit waits for a run in another mode"
    gate.open.set()
    thread.join(10)
    assert results[0]["y0"].tolist() == [2] * 4
    assert all(run.result(10)["y1"].tolist() == [2] * 4 for run in submitted[0])
    assert exe.mode == "streams"
    assert list(exe._engines) == ["streams"]
    assert not exe._retired
    assert "several runs in flight" in exe.why


def test_closing_while_modes_are_planned_anew_leaves_no_engine_open(
    exe: ag.Executable, monkeypatch: pytest.MonkeyPatch
) -> None:
    remake, planned, go_on = exe._remake, threading.Event(), threading.Event()
    loaded = []
    assert remake is not None

    def slow(seconds: Mapping[str, float]) -> Mapping[str, Remade]:
        def kept(load: Any) -> Any:
            loaded.append(load())
            return loaded[-1]

        made = {m: Remade(r.plan, lambda r=r: kept(r.load)) for m, r in remake(seconds).items()}
        planned.set()
        assert go_on.wait(30)
        return made

    another_schedule(monkeypatch, exe)
    monkeypatch.setattr(exe, "_remake", slow)
    thread, results = in_thread(lambda: exe.run(x=X))
    assert planned.wait(10)
    exe.close()
    go_on.set()
    thread.join(10)
    assert results[0]["y0"].tolist() == [2] * 4
    assert loaded == []
    with pytest.raises(ag.AsyncNetError, match="closed"):
        exe.run(x=X)


def test_a_trace_that_begins_beside_a_profiled_run_is_the_users_alone(
    exe: ag.Executable, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_schedule(monkeypatch, exe)
    exe._engine, exe._chooser.choice = exe._engines["serial"], "serial"
    gate.shut()
    thread, results = in_thread(lambda: exe.run(x=X))
    assert gate.entered.wait(10)
    with exe.trace() as timeline:
        gate.open.set()
        thread.join(10)
        assert results[0]["y0"].tolist() == [2] * 4
        for _ in range(2):
            exe.run(x=X)
    assert len(timeline.runs) in (2, 3)  # the profiled one may have ended inside
    assert exe._engine.tracer is None
    until_decided(exe)
    exe.run(x=X)
    assert len(exe._engines) == 1


def test_a_trace_is_of_one_mode_though_another_is_chosen(exe: ag.Executable) -> None:
    exe.run(x=X)
    with exe.trace() as timeline:
        exe._chooser.choice, exe._chooser.decided = "serial", True
        for _ in range(3):
            exe.run(x=X)
        assert exe.submit(x=X).result(20)["y0"].tolist() == [2] * 4
    assert len(timeline.runs) == 4
    exe.run(x=X)
    assert list(exe._engines) == [exe.mode] == ["serial"]
    assert not exe._retired


def test_a_mode_is_exchanged_while_another_thread_runs_it(
    exe: ag.Executable, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_schedule(monkeypatch, exe)
    old = exe._engines["streams"]
    remake, planned, go_on = exe._remake, threading.Event(), threading.Event()
    assert remake is not None

    def slow(seconds: Mapping[str, float]) -> Mapping[str, Remade]:
        planned.set()
        assert go_on.wait(30)
        return remake(seconds)

    monkeypatch.setattr(exe, "_remake", slow)
    thread, results = in_thread(lambda: exe.run(x=X))
    assert planned.wait(10)
    gate.shut()
    others = [in_thread(lambda: exe.run(x=X)) for _ in range(3)]  # two slots: one is queued
    assert gate.entered.wait(10)
    go_on.set()
    thread.join(10)
    assert not thread.is_alive(), "planning waits for the runs of other threads"
    assert exe._engines["streams"] is not old
    gate.open.set()
    for other, got in [*others, (thread, results)]:
        other.join(10)
        assert got[0]["y0"].tolist() == [2] * 4
    exe.run(x=X)
    assert old._closed
    assert not exe._retired


@pytest.mark.parametrize("error", [ag.PlanError("no plan"), MemoryError("no room")])
def test_a_run_has_its_outputs_though_planning_fails(
    exe: ag.Executable, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(seconds: Mapping[str, float]) -> Mapping[str, Remade]:
        raise error

    monkeypatch.setattr(exe, "_remake", fails)
    assert exe.run(x=X)["y0"].tolist() == [2] * 4
    assert exe._chooser.to_profile == 0
    assert f"not planned by measured times: {error}" in exe.why
    until_decided(exe)
    assert exe.why.startswith("measured")


def test_a_run_inside_a_run_that_ends_the_comparison(exe: ag.Executable, gate: Gate) -> None:
    """It closes the mode of the run around it: neither waits for the other."""
    inner: list[Any] = []

    def submit_once() -> None:
        gate.before = lambda: None
        inner.append(exe.submit(x=X).result(20))

    gate.before = submit_once
    thread, results = in_thread(lambda: exe.run(x=X))
    thread.join(20)
    assert not thread.is_alive()
    assert results[0]["y0"].tolist() == inner[0]["y0"].tolist() == [2] * 4
    assert list(exe._engines) == ["streams"]
    assert not exe._retired


def test_two_waits_for_a_turn_have_one_limit(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    net = ag.AsyncNet("counts")
    x = net.input("x", (4,), "float32")
    for i in range(2):
        net.output(**{f"y{i}": net.call(gate, x, shape=4, dtype="float32")})
    total = net.parameter("total", np.zeros(4, np.float32))
    net.output(total=net.assign_add(total, x))
    limits: list[float | None] = []
    turn = Chooser.turn

    def noted(self: Chooser, timeout_s: float | None = None, **options: Any) -> Any:
        limits.append(timeout_s)
        return turn(self, timeout_s, **options)

    monkeypatch.setattr(Chooser, "turn", noted)
    with net.compile(backend="cpu") as exe:
        with exe._chooser.profile() as own:
            assert own
            waiting, _ = in_thread(lambda: exe.run(x=X, timeout_s=10))
            time.sleep(0.2)
            exe._chooser.decided = True  # the run that waits finds none to be profiled
        waiting.join(10)
    assert len(limits) == 1
    assert limits[0] is not None
    assert limits[0] < 9.9


def test_a_report_and_runs_that_update_a_state_do_not_overlap(gate: Gate) -> None:
    net = net_of(gate)
    total = net.parameter("total", np.zeros(4, np.float32))
    net.output(total=net.assign_add(total, net.blob("gate0")))
    with net.compile(backend="cpu", timeout_s=60) as exe:
        exe.run(x=X)
        gate.shut()
        thread, results = in_thread(lambda: exe.run(x=X))
        assert gate.entered.wait(10)
        other, reports = in_thread(lambda: exe.report(x=X, rounds=1))
        time.sleep(0.1)
        assert other.is_alive()
        assert [engine._n_busy for engine in exe._engines.values()] == [1, 0]
        gate.open.set()
        for ended in (thread, other):
            ended.join(20)
        assert results[0]["y0"].tolist() == [2] * 4
        assert reports[0].node_seconds["gate0"] > 0


@pytest.mark.parametrize("mode", ["auto", "serial"])
def test_traces_of_two_threads_that_overlap(gate: Gate, mode: str) -> None:
    with net_of(gate).compile(backend="cpu", mode=mode) as exe:
        first, second = exe.trace(), exe.trace(cpu_times=True)
        with first as early:  # ends before the other, which begins inside
            exe.run(x=X)
            thread, entered = in_thread(second.__enter__)
            thread.join(10)
            late = entered[0]
            exe.run(x=X)
        exe.run(x=X)
        assert all(part.cpu_s is not None for part in late.runs[-1].host)
        second.__exit__(None, None, None)
        exe.run(x=X)
        assert [len(early.runs), len(late.runs)] == [2, 2]
        assert exe._engine.tracer is None
        assert not exe._engine.cpu_times
