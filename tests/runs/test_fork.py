"""A forked child has none of its parent's threads, and works all the same."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from helpers.forks import in_child

import asyncnet_gpu as ag
from asyncnet_gpu.backends.cpu.blas import GOVERNOR

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
            assert not told
            gate.open = threading.Event()
            gate.open.set()
            assert not GOVERNOR._users
            use(exe)
            exe.close()

        # What other threads may hold at that moment.
        with exe._engine.lock, exe._chooser.lock, GOVERNOR._lock:
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
