"""Whatever fails: one typed error with full blame, nothing hangs, the executable stays usable."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.ops import registry

MODES = ("serial", "streams", "graph")
X = np.ones(4, np.float32)


class Switch:
    """An operator that fails or hangs when told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.gate: threading.Event | None = None

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        if self.gate is not None:
            self.gate.wait(30)
        if self.error is not None:
            raise self.error
        out[:] = a + 1


def two_branches(left: Switch, right: Switch, calls: list[str]) -> ag.AsyncNet:
    def later(name: str) -> Any:
        def fn(xp: Any, a: Any, out: Any) -> None:
            calls.append(name)
            out[:] = a

        return fn

    net = ag.AsyncNet("branches")
    x = net.input("x", (4,), "float32")
    a = net.call(left, x, shape=4, dtype="float32", name="left")
    b = net.call(right, x, shape=4, dtype="float32", name="right")
    net.output(net.call(later("after_left"), a, shape=4, dtype="float32", name="after_left"))
    net.output(net.call(later("after_right"), b, shape=4, dtype="float32", name="after_right"))
    return net


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["run", "submit"])
def test_first_error_is_raised_with_blame_and_dependents_do_not_run(mode: str, how: str) -> None:
    left, right, calls = Switch(), Switch(), list[str]()
    net = two_branches(left, right, calls)
    with net.compile(backend="cpu", mode=mode, allocator="exact") as exe:
        left.error = ZeroDivisionError("boom")
        for _ in range(2):
            calls.clear()
            with pytest.raises(ag.DeviceError) as caught:
                exe.run(x=X) if how == "run" else exe.submit(x=X).result(5)
            assert isinstance(caught.value, ZeroDivisionError)
            text = str(caught.value)
            for part in ("'left'", "step", "cpu:0/", "slot 0", "float32[4]", "test_failures.py"):
                assert part in text
            assert caught.value.__cause__ is left.error
            assert calls == ["after_right"]
        left.error = None
        assert exe.run(x=X)["after_left"].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("mode", MODES)
def test_both_failures_are_listed(mode: str) -> None:
    left, right = Switch(), Switch()
    left.error, right.error = ValueError("one"), KeyError("two")
    with (
        two_branches(left, right, []).compile(backend="cpu", mode=mode, allocator="exact") as exe,
        pytest.raises(ag.DeviceError) as caught,
    ):
        exe.run(x=X)
    everything = str(caught.value) + "".join(caught.value.__notes__)
    assert "'left'" in everything
    assert "'right'" in everything


def test_first_error_in_time_wins() -> None:
    left, right = Switch(), Switch()
    left.error, right.error = ValueError("late"), KeyError("early")
    left.gate = threading.Event()
    original = right.__call__

    net = ag.AsyncNet()
    x = net.input("x", (4,), "float32")

    def early(xp: Any, a: Any, out: Any) -> None:
        try:
            original(xp, a, out)
        finally:
            threading.Timer(0.05, left.gate.set).start()

    a = net.call(left, x, shape=4, dtype="float32", name="left")
    b = net.call(early, x, shape=4, dtype="float32", name="right")
    net.output(a, b)
    with (
        net.compile(backend="cpu", mode="streams", allocator="exact") as exe,
        pytest.raises(KeyError) as caught,
    ):
        exe.run(x=X)
    assert "'right'" in str(caught.value)
    assert "'left'" in "".join(caught.value.__notes__)


@pytest.fixture
def hanging() -> Iterator[tuple[Switch, ag.AsyncNet]]:
    switch = Switch()
    gate = switch.gate = threading.Event()
    net = two_branches(switch, Switch(), [])
    yield switch, net
    gate.set()


@pytest.mark.parametrize("mode", MODES)
def test_operator_that_never_returns(mode: str, hanging: tuple[Switch, ag.AsyncNet]) -> None:
    switch, net = hanging
    with net.compile(backend="cpu", mode=mode, allocator="exact") as exe:
        with pytest.raises(ag.DeadlineExceeded, match="still in Call 'left'"):
            exe.run(x=X, timeout_s=0.1)
        switch.gate = None
        assert exe.run(x=X)["after_left"].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("mode", MODES)
def test_hanging_run_is_given_up_after_the_limit(
    mode: str, hanging: tuple[Switch, ag.AsyncNet]
) -> None:
    switch, net = hanging
    with net.compile(backend="cpu", mode=mode, allocator="exact", timeout_s=0.3) as exe:
        run = exe.submit(x=X)
        queued = exe.submit(x=X)
        with pytest.raises(ag.DeadlineExceeded, match="no result in time"):
            run.result(timeout_s=0.05)
        assert not run.done()
        switch.gate = None
        with pytest.raises(ag.DeadlineExceeded, match="does not return"):
            run.result()
        assert queued.result(5)["after_left"].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("mode", MODES)
def test_cancel_running_and_queued(mode: str, hanging: tuple[Switch, ag.AsyncNet]) -> None:
    switch, net = hanging
    assert switch.gate is not None
    with net.compile(backend="cpu", mode=mode) as exe:
        running, queued = exe.submit(x=X), exe.submit(x=X)
        assert queued.cancel()
        with pytest.raises(ag.RunCancelled):
            queued.result(1)
        assert running.cancel()
        switch.gate.set()
        with pytest.raises(ag.RunCancelled):
            running.result(5)
        assert not running.cancel()
        assert exe.run(x=X)["after_left"].tolist() == [2, 2, 2, 2]


def test_queue_full_raises_or_blocks(hanging: tuple[Switch, ag.AsyncNet]) -> None:
    switch, net = hanging
    assert switch.gate is not None
    with net.compile(backend="cpu", mode="serial", queue=1, on_full="raise") as exe:
        runs = [exe.submit(x=X), exe.submit(x=X)]
        with pytest.raises(ag.QueueFull, match="all slots are busy"):
            exe.submit(x=X)
        switch.gate.set()
        for run in runs:
            assert run.result(5)["after_left"].tolist() == [2, 2, 2, 2]


def test_blocking_submit_goes_on_when_there_is_room(
    hanging: tuple[Switch, ag.AsyncNet],
) -> None:
    switch, net = hanging
    assert switch.gate is not None
    with net.compile(backend="cpu", mode="serial", queue=1) as exe:
        runs = [exe.submit(x=X), exe.submit(x=X)]
        blocked = threading.Thread(target=lambda: runs.append(exe.submit(x=X)))
        blocked.start()
        blocked.join(0.05)
        assert blocked.is_alive()
        switch.gate.set()
        blocked.join(5)
        assert [r.result(5)["after_left"][0] for r in runs] == [2, 2, 2]


def test_deadline_is_checked_before_the_launch(hanging: tuple[Switch, ag.AsyncNet]) -> None:
    switch, net = hanging
    assert switch.gate is not None
    calls_before = switch.gate
    with net.compile(backend="cpu", mode="serial") as exe:
        first = exe.submit(x=X)
        late = exe.submit(x=X, deadline_s=0.0)
        calls_before.set()
        first.result(5)
        with pytest.raises(ag.DeadlineExceeded, match="before the launch"):
            late.result(5)


def test_closed_executable_says_so() -> None:
    net = two_branches(Switch(), Switch(), [])
    exe = net.compile(backend="cpu")
    exe.close()
    with pytest.raises(ag.AsyncNetError, match="closed"):
        exe.run(x=X)


def test_barrier_of_a_failed_run_raises_and_of_a_hanging_one_times_out(
    hanging: tuple[Switch, ag.AsyncNet],
) -> None:
    switch, _ = hanging
    assert switch.gate is not None
    net = ag.AsyncNet()
    x = net.input("x", (4,), "float32")
    h = net.call(switch, x, shape=4, dtype="float32", name="h")
    ready = net.barrier(h, name="ready")
    net.output(net.copy(h, name="y"))
    with net.compile(backend="cpu", mode="streams") as exe:
        run = exe.submit(x=X)
        assert not ready.reached(run)
        with pytest.raises(ag.DeadlineExceeded, match="barrier 'ready'"):
            ready.wait(run, timeout_s=0.05)
        switch.error = ValueError("boom")
        switch.gate.set()
        with pytest.raises(ValueError, match="boom"):
            ready.wait(run, timeout_s=5)


def test_keyboard_interrupt_passes_through() -> None:
    def interrupt(xp: Any, a: Any, out: Any) -> None:
        raise KeyboardInterrupt

    net = ag.AsyncNet()
    x = net.input("x", (4,), "float32")
    net.output(net.call(interrupt, x, shape=4, dtype="float32", name="y"))
    with net.compile(backend="cpu", mode="serial") as exe, pytest.raises(KeyboardInterrupt):
        exe.run(x=X)


def test_what_an_operator_cannot_bind_names_the_node() -> None:
    def bind(*_: object) -> None:
        raise OverflowError("too large for the way it is written")

    net = ag.AsyncNet("unbound")
    x = net.input("x", (3,), "int32")
    net.output(*net.add_node(replace(registry()["neg"], bind=bind), (x,), {}, name="n"))
    with pytest.raises(ag.DeviceError, match="'n' cannot be bound") as caught:
        net.compile(backend="cpu", mode="serial").run(x=np.ones(3, np.int32))
    assert "OverflowError: too large" in str(caught.value)
    assert "test_failures.py" in str(caught.value)


def test_a_constant_that_cannot_be_folded_fails_in_the_run_with_its_node() -> None:
    net = ag.AsyncNet("power")
    two, minus = net.constant(np.full(3, 2)), net.constant(np.full(3, -1))
    net.output(net.pow(two, minus, name="p"))
    with (
        net.compile(backend="cpu", mode="serial") as exe,
        pytest.raises(ag.DeviceError, match=r"'p'.*negative integer powers"),
    ):
        exe.run()
