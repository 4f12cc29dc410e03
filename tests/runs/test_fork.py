"""A forked child has none of its parent's threads, and works all the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import traceback
import warnings
from typing import Any

import numpy as np
import pytest
from helpers.forks import in_child

import asyncnet_gpu as ag
from asyncnet_gpu.backends.cpu.blas import GOVERNOR
from asyncnet_gpu.engine import Engine

N = 64
X = np.linspace(-1, 1, N * N, dtype=np.float32).reshape(N, N)


class Gate:
    """A step that waits to be let through, in the process that closed it."""

    def __init__(self) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        self.open.set()

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        self.reached.set()
        assert self.open.wait(30)
        out[...] = a


def two_branches(gate: Gate | None = None) -> ag.AsyncNet:
    net = ag.AsyncNet("branches")
    x = net.input("x", (N, N), "float32")
    w = net.parameter("w", X.T.copy())
    left, right = net.matmul(x, w), net.matmul(w, x)
    if gate is not None:
        left = net.call(gate, left, shape=(N, N), dtype="float32", name="gate")
    net.barrier(left, right, name="ready")
    net.output(y=net.add(left, right))
    return net


def expected(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with two_branches().compile(backend="cpu", mode="serial") as exe:
        return np.asarray(exe.run(x=x)["y"])


def use(exe: ag.Executable) -> None:
    """Run in every way there is."""
    wanted = [expected(X + i) for i in range(3)]
    for _ in range(3):
        np.testing.assert_array_equal(exe.run(x=X)["y"], wanted[0])
    np.testing.assert_array_equal(exe.run(x=X, timeout_s=20)["y"], wanted[0])
    runs = [exe.submit(x=X + i) for i in range(3)]
    for run, value in zip(runs, wanted, strict=True):
        np.testing.assert_array_equal(run.result(20)["y"], value)

    async def awaited() -> Any:
        return await exe.submit(x=X)

    np.testing.assert_array_equal(asyncio.run(awaited())["y"], wanted[0])
    with exe.trace() as timeline:
        exe.run(x=X)
    assert timeline.runs[0].slices


@pytest.mark.parametrize("mode", ["serial", "streams", "graph", "auto"])
@pytest.mark.parametrize("slots", [1, 2])
def test_an_executable_works_in_parent_and_child(mode: str, slots: int) -> None:
    with two_branches().compile(backend="cpu", mode=mode, slots=slots, timeout_s=25) as exe:
        use(exe)

        def child() -> None:
            use(exe)
            exe.close()
            with two_branches().compile(backend="cpu", mode=mode) as fresh:
                use(fresh)

        in_child(child)
        use(exe)
        in_child(lambda: in_child(lambda: use(exe)))


@pytest.mark.parametrize("mode", ["serial", "streams", "auto"])
def test_runs_under_way_go_on_in_the_parent_alone(mode: str) -> None:
    """Locks and limits that belong to other threads of the parent do not hold the child."""
    gate = Gate()
    with two_branches(gate).compile(backend="cpu", mode=mode, timeout_s=25) as exe:
        use(exe)
        gate.open.clear()
        gate.reached.clear()
        told: list[ag.Run] = []
        runs = [exe.submit(x=X) for _ in range(3)]  # one under way, two queued
        for run in runs:
            run.add_done_callback(told.append)
        assert gate.reached.wait(20)

        def child() -> None:
            for run in runs:
                assert run.done()
                with pytest.raises(ag.RunCancelled):
                    run.result(0)
                assert not run._callbacks
            assert not exe._engine._queue
            assert not exe._engine._running
            assert not exe._engine._n_made
            assert not timeline.runs
            gate.open = threading.Event()
            gate.open.set()
            assert not GOVERNOR._users
            use(exe)
            exe.close()

        chooser = exe._chooser
        with exe.trace() as timeline:
            # What other threads may hold at that moment.
            locks = (exe._engine.lock, chooser.lock, chooser._turn, timeline._lock, GOVERNOR._lock)
            with contextlib.ExitStack() as stack:
                for lock in locks:
                    stack.enter_context(lock)
                in_child(child)
        gate.open.set()
        for run in runs:
            np.testing.assert_array_equal(run.result(20)["y"], expected(X))
        assert set(told) == set(runs)


def test_a_state_goes_on_from_where_it_was_in_each_process() -> None:
    net = ag.AsyncNet("counter")
    x = net.input("x", (4,), "float32")
    n = net.parameter("n", np.zeros(4, np.float32))
    net.output(n=net.assign(n, net.add(n, x)))
    one = np.ones(4, np.float32)

    def counts(exe: ag.Executable, wanted: int) -> None:
        np.testing.assert_array_equal(exe.run(x=one)["n"], wanted * one)

    with net.compile(backend="cpu", mode="streams") as exe:
        counts(exe, 1)
        in_child(lambda: counts(exe, 2))
        counts(exe, 2)


def test_a_run_is_lost_to_the_child_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the queue and the slot, too."""
    begin = Engine._begin
    children: list[int] = []

    def forking(self: Engine, run: ag.Run, slot: Any) -> bool:
        def child() -> None:
            assert run.done()
            with pytest.raises(ag.RunCancelled, match="goes on in the parent"):
                run.result(0)

        in_child(child)
        children.append(1)
        return begin(self, run, slot)

    with two_branches().compile(backend="cpu", mode="streams") as exe:
        monkeypatch.setattr(Engine, "_begin", forking)
        np.testing.assert_array_equal(exe.submit(x=X).result(20)["y"], expected(X))
    assert children


@pytest.mark.parametrize("mode", ["serial", "auto"])
def test_a_step_may_fork_and_come_back_in_the_child(mode: str) -> None:
    net = ag.AsyncNet("forking")
    x = net.input("x", (N, N), "float32")
    n = net.parameter("n", np.zeros((N, N), np.float32))
    forks: list[bool] = []
    fork = Forking(forks)
    y = net.call(fork, net.matmul(x, x), shape=(N, N), dtype="float32")
    net.output(y=net.add(y, net.matmul(x, x)), n=net.assign(n, net.add(n, x)))

    with net.compile(backend="cpu", mode=mode, timeout_s=10) as exe:
        exe.run(x=X)
        forks.append(True)
        exe.run(x=X)
        if fork.child == 0:
            code = 1
            try:
                assert exe._engine._n_busy == 0
                np.testing.assert_array_equal(exe.run(x=X)["n"], X + X + X)
                exe.get_parameter("n")
                begun = time.monotonic()
                exe.close()
                code = int(time.monotonic() - begun > 5)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(fork.child, 0)[1]) == 0
        np.testing.assert_array_equal(exe.run(x=X)["n"], X + X + X)


class Forking:
    """A step that forks once it is told to."""

    def __init__(self, told: list[bool]) -> None:
        self.told, self.child = told, -1

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        if self.told:
            self.told.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self.child = os.fork()
        out[...] = a
