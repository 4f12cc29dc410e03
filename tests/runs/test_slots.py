"""Slots and queue when things go wrong around a run: nobody waits for ever, nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.backends.cpu.backend import CpuBackend
from asyncnet_gpu.backends.cpu.program import CpuProgram

X = np.ones(4, np.float32)


class Gate:
    """An operator that waits for the test, or fails."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.error: Exception | None = None

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        self.entered.release()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        out[...] = a + 1


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def gated(gate: Gate) -> ag.AsyncNet:
    net = ag.AsyncNet("gated")
    x = net.input("x", (4,), "float32")
    net.output(net.call(gate, x, shape=4, dtype="float32", name="y"))
    net.output(net.add(x, 1.0, name="z"))
    return net


def fail_calls(
    monkeypatch: pytest.MonkeyPatch, cls: type, method: str, calls: set[int], error: Exception
) -> None:
    """Let the given calls of a method raise, counted from 0."""
    original, count = getattr(cls, method), [0]

    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] - 1 in calls:
            raise error
        return original(self, *args, **kwargs)

    monkeypatch.setattr(cls, method, wrapper)


@pytest.mark.parametrize("mode", ["serial", "streams"])
def test_outputs_of_a_failed_run_cannot_be_read(mode: str, gate: Gate) -> None:
    gate.open.set()
    with gated(gate).compile(backend="cpu", mode=mode, allocator="exact") as exe:
        kept = exe.run(x=X)
        gate.error = ValueError("boom")
        run = exe.submit(x=2 * X)
        for _ in range(2):  # not the second time either
            with pytest.raises(ValueError, match="boom"):
                run.result(5)
        assert run.exception() is not None
        # What an earlier run returned is its own, not a window on the slot.
        assert kept["y"].tolist() == kept["z"].tolist() == [2, 2, 2, 2]
        gate.error = None
        assert exe.run(x=3 * X)["z"].tolist() == [4, 4, 4, 4]
        assert kept["z"].tolist() == [2, 2, 2, 2]


def test_a_queued_run_that_cannot_start_harms_no_other(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated(gate).compile(backend="cpu", mode="serial") as exe:
        fail_calls(monkeypatch, CpuProgram, "start", {1}, ag.DeviceError("no launch"))
        runs = [exe.submit(x=X) for _ in range(4)]
        gate.open.set()
        with pytest.raises(ag.DeviceError, match="no launch"):
            runs[1].result(5)
        for i in (0, 2, 3):
            assert runs[i].result(5)["y"].tolist() == [2, 2, 2, 2]


def test_a_run_that_cannot_start_at_once_ends_with_the_error(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    with gated(gate).compile(backend="cpu", mode="serial") as exe:
        fail_calls(monkeypatch, CpuProgram, "start", {0}, ag.DeviceError("no launch"))
        with pytest.raises(ag.DeviceError, match="no launch"):
            exe.submit(x=X).result(5)
        assert exe.submit(x=X).result(5)["y"].tolist() == [2, 2, 2, 2]


def test_queued_runs_end_when_no_new_slot_can_be_made(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated(gate).compile(backend="cpu", mode="serial", timeout_s=0.2) as exe:
        hanging, *queued = [exe.submit(x=X) for _ in range(3)]
        error = ag.OutOfDeviceMemoryError("no room")
        fail_calls(monkeypatch, CpuBackend, "program", {0, 1}, error)
        with pytest.raises(ag.DeadlineExceeded, match="does not return"):
            hanging.result()
        for run in queued:
            with pytest.raises(ag.OutOfDeviceMemoryError, match="no room"):
                run.result(5)
        gate.open.set()
        assert exe.run(x=X)["y"].tolist() == [2, 2, 2, 2]


def test_runs_queued_behind_a_slot_that_fails_to_come_are_served(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread fails to make a slot, another has queued its run."""
    with gated(gate).compile(backend="cpu", mode="serial", timeout_s=0.2) as exe:
        hanging = exe.submit(x=X)
        with pytest.raises(ag.DeadlineExceeded, match="does not return"):
            hanging.result()
        gate.open.set()
        making, go_on = threading.Event(), threading.Event()
        original = CpuBackend.program

        def slow_failure(self: Any, *args: Any) -> Any:
            monkeypatch.setattr(CpuBackend, "program", original)
            making.set()
            assert go_on.wait(30)
            raise ag.OutOfDeviceMemoryError("no room")

        monkeypatch.setattr(CpuBackend, "program", slow_failure)
        failed: list[BaseException] = []

        def first() -> None:
            try:
                exe.submit(x=X)
            except ag.OutOfDeviceMemoryError as error:
                failed.append(error)

        thread = threading.Thread(target=first)
        thread.start()
        assert making.wait(30)
        queued = exe.submit(x=X)
        go_on.set()
        assert queued.result(5)["y"].tolist() == [2, 2, 2, 2]
        thread.join(5)
        assert len(failed) == 1


def test_a_hanging_run_that_nobody_waits_for_is_given_up_by_the_next(gate: Gate) -> None:
    with gated(gate).compile(
        backend="cpu", mode="serial", timeout_s=0.1, queue=0, on_full="raise"
    ) as exe:
        hanging = exe.submit(x=X)
        with pytest.raises(ag.QueueFull):
            exe.submit(x=X)
        threading.Event().wait(0.15)  # the limit itself is what is tested
        gate.open.set()
        assert exe.submit(x=X).result(5)["y"].tolist() == [2, 2, 2, 2]
        with pytest.raises(ag.DeadlineExceeded, match="does not return"):
            hanging.result()


def test_a_deadline_holds_while_the_caller_waits_for_room(gate: Gate) -> None:
    with gated(gate).compile(backend="cpu", mode="serial", queue=0) as exe:
        first = exe.submit(x=X)
        late = exe.submit(x=X, deadline_s=0.05)
        assert late.done()
        with pytest.raises(ag.DeadlineExceeded, match="before the launch"):
            late.result()
        gate.open.set()
        assert first.result(5)["y"].tolist() == [2, 2, 2, 2]


def test_closing_wakes_those_who_wait_for_room_and_ends_what_is_queued(gate: Gate) -> None:
    exe = gated(gate).compile(backend="cpu", mode="serial", queue=1)
    running, queued = exe.submit(x=X), exe.submit(x=X)
    errors: list[BaseException] = []
    entered = threading.Barrier(4)

    def blocked() -> None:
        entered.wait(5)
        try:
            exe.submit(x=X)
        except ag.AsyncNetError as error:
            errors.append(error)

    threads = [threading.Thread(target=blocked) for _ in range(3)]
    for thread in threads:
        thread.start()
    entered.wait(5)
    closing = threading.Thread(target=exe.close)
    closing.start()
    for thread in threads:  # they do not wait for the run under way
        thread.join(5)
        assert not thread.is_alive()
    assert len(errors) == 3
    assert all("closed" in str(e) for e in errors)
    with pytest.raises(ag.RunCancelled):
        queued.result(5)
    gate.open.set()
    closing.join(10)
    assert not closing.is_alive()
    assert running.result(5)["y"].tolist() == [2, 2, 2, 2]


def test_a_callback_that_raises_is_logged_and_harms_no_later_run(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    with gated(gate).compile(backend="cpu", mode="streams", allocator="exact") as exe:
        run, seen = exe.submit(x=X), list[ag.Run]()

        def bad(_: ag.Run) -> None:
            raise RuntimeError("from the callback")

        run.add_done_callback(bad)
        run.add_done_callback(seen.append)
        with caplog.at_level(logging.ERROR, logger="asyncnet_gpu.run"):
            gate.open.set()
            run.result(5)
            for _ in range(3):
                assert exe.submit(x=X).result(5)["y"].tolist() == [2, 2, 2, 2]
        assert seen == [run]
        assert "from the callback" in caplog.text


def test_an_event_loop_that_ends_before_the_run_harms_no_later_run(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    with gated(gate).compile(backend="cpu", mode="streams", allocator="exact") as exe:
        made: list[ag.Run] = []

        async def impatient() -> None:
            made.append(exe.submit(x=X))
            await asyncio.wait_for(made[0], 0.05)

        with pytest.raises(TimeoutError):
            asyncio.run(impatient())
        gate.open.set()
        assert made[0].result(5)["y"].tolist() == [2, 2, 2, 2]
        assert exe.submit(x=X).result(5)["y"].tolist() == [2, 2, 2, 2]
    assert caplog.text == ""


def test_the_first_error_in_time_is_the_one_that_is_awaited(gate: Gate) -> None:
    net = ag.AsyncNet()
    x = net.input("x", (4,), "float32")

    def early(xp: Any, a: Any, out: Any) -> None:
        assert gate.entered.acquire(timeout=30)
        threading.Timer(0.05, gate.open.set).start()
        raise KeyError("early")

    gate.error = ValueError("late")
    net.output(net.call(gate, x, shape=4, dtype="float32", name="left"))
    net.output(net.call(early, x, shape=4, dtype="float32", name="right"))

    async def main() -> None:
        with net.compile(backend="cpu", mode="streams", allocator="exact") as exe:
            await exe.submit(x=X)

    with pytest.raises(KeyError) as caught:
        asyncio.run(main())
    assert "'right'" in str(caught.value)
    assert "'left'" in "".join(caught.value.__notes__)


def test_a_barrier_of_another_net_is_refused(gate: Gate) -> None:
    gate.open.set()
    net = gated(gate)
    ready = net.barrier(net.blob("y"), name="ready")
    other = ag.AsyncNet("other")
    x = other.input("x", (4,), "float32")
    foreign, clash = other.barrier(x, name="foreign"), other.barrier(x, name="y")
    with net.compile(backend="cpu", mode="streams") as exe:
        run = exe.submit(x=X)
        ready.wait(run, timeout_s=5)
        run.result(5)
        for barrier in (foreign, clash):
            with pytest.raises(ag.NetError, match=r"no barrier.*expected one of ready"):
                barrier.reached(run)


@pytest.mark.parametrize("failing", ["left", "right"])
@pytest.mark.parametrize("how", ["run", "submit"])
def test_what_joins_a_failed_branch_does_not_run_on_any_stream(failing: str, how: str) -> None:
    ran: list[str] = []
    failed = threading.Event()

    def step(name: str) -> Any:
        def fn(xp: Any, *arrays: Any, out: Any) -> None:
            if name == failing:
                failed.set()
                raise ValueError("boom")
            if name in ("left", "right"):  # in the fast loop when the other one fails
                assert failed.wait(10)
            ran.append(name)
            out[...] = 1

        return fn

    net = ag.AsyncNet("join")
    x = net.input("x", (4,), "float32")
    ends = []
    for side in ("left", "right"):
        h = net.call(step(side), x, shape=4, dtype="float32", name=side)
        ends.append(net.call(step(f"{side}2"), h, shape=4, dtype="float32", name=f"{side}2"))
    for i in range(2):  # joins on both streams
        join = net.call(step(f"join{i}"), *ends, shape=4, dtype="float32", name=f"join{i}")
        net.output(net.call(step(f"last{i}"), join, shape=4, dtype="float32", name=f"last{i}"))
    with net.compile(backend="cpu", mode="streams", allocator="exact") as exe:
        assert len(exe.plan.streams) == 2
        for _ in range(3):
            ran.clear()
            failed.clear()
            with pytest.raises(ValueError, match="boom"):
                exe.run(x=X) if how == "run" else exe.submit(x=X).result(5)
            other = "right" if failing == "left" else "left"
            assert sorted(ran) == sorted([other, f"{other}2"])


def test_all_who_wait_for_one_run_are_woken(gate: Gate) -> None:
    with gated(gate).compile(backend="cpu", mode="serial") as exe:
        run = exe.submit(x=X)
        results: list[Any] = []
        threads = [
            threading.Thread(target=lambda: results.append(run.result(30)["y"][0]))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        assert gate.entered.acquire(timeout=10)
        gate.open.set()
        for thread in threads:
            thread.join(10)  # well within their own limit
            assert not thread.is_alive()
        assert results == [2.0] * 4


def test_the_end_of_a_run_is_set_once(gate: Gate) -> None:
    gate.open.set()
    with gated(gate).compile(backend="cpu", mode="serial") as exe:
        run = exe.submit(x=X)
        outputs = run.result(5)
        run.finish({}, ag.RunCancelled("too late"))
        assert run.result() is outputs
        assert run.exception() is None


@pytest.mark.parametrize("mode", ["serial", "streams"])
def test_what_comes_after_a_failed_step_by_request_does_not_run(mode: str) -> None:
    ran: list[str] = []

    def fail(xp: Any, a: Any, out: Any) -> None:
        raise ValueError("boom")

    def note(name: str) -> Any:
        def fn(xp: Any, a: Any, out: Any) -> None:
            ran.append(name)
            out[...] = a

        return fn

    net = ag.AsyncNet("after")
    x = net.input("x", (4,), "float32")
    net.output(net.call(fail, x, shape=4, dtype="float32", name="fails"))
    net.output(net.call(note("after"), x, shape=4, dtype="float32", name="y", after=["fails"]))
    net.output(net.call(note("beside"), x, shape=4, dtype="float32", name="z"))
    with net.compile(backend="cpu", mode=mode, allocator="exact") as exe:
        with pytest.raises(ValueError, match="boom"):
            exe.run(x=X)
        assert ran == ["beside"]
