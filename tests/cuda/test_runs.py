"""Runs in flight: barriers, cancelling, tracing, memory that stays flat, asyncio."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import numpy as np
import pytest
from helpers.cuda_nets import SIZE, diamond, mix

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu

MODES = ("serial", "streams", "graph", "graph-serial")
X = np.arange(SIZE, dtype=np.int32)


def gated() -> tuple[ag.AsyncNet, Any, threading.Event]:
    """A net with a barrier before, and one behind, a function that waits for the host."""
    gate = threading.Event()

    def hold(xp: Any, a: Any, out: Any) -> None:
        gate.wait(10)
        out[...] = a

    net = ag.AsyncNet("gated")
    x = net.input("x", (SIZE,), "int32")
    h = mix(net, x, x, 1, name="h")
    early = net.barrier(h, name="early")
    held = net.call(hold, h, shape=SIZE, dtype="int32", name="held")
    late = net.barrier(held, name="late")
    net.output(y=mix(net, held, x, 1, name="y"))
    return net, (early, late), gate


def test_the_host_sees_a_barrier_passed_while_the_run_goes_on() -> None:
    net, (early, late), gate = gated()
    with net.compile(backend="cuda", mode="streams") as exe:
        for _ in range(2):
            gate.clear()
            run = exe.submit(x=X)
            early.wait(run, timeout_s=5)
            assert not late.reached(run)
            assert not run.done()
            gate.set()
            late.wait(run, timeout_s=5)
            run.result(5)


@pytest.mark.parametrize("mode", MODES)
def test_barriers_are_passed_by_the_end_of_every_run(mode: str) -> None:
    net = diamond()
    with net.compile(backend="cuda", mode=mode) as exe:
        for _ in range(3):
            run = exe.submit(x=X)
            handle = ag.AsyncNetBarrier(net, "ready", ())
            handle.wait(run, timeout_s=5)
            run.result(5)
            assert handle.reached(run)


@pytest.mark.parametrize("mode", ["graph", "graph-serial"])
def test_a_replay_marks_its_barriers(mode: str) -> None:
    with diamond().compile(backend="cuda", mode=mode) as exe:
        program = exe._engine._free[0].program
        node = exe._engine.node_id("ready")
        assert not program._marks.passed(node)
        for _ in range(2):
            exe.run(x=X)
            assert program._marks.passed(node)
            program._marks.clear()


SLOW = """
extern "C" __global__ void slow(const int* a, int* out) {
  long long until = clock64() + 300000000;
  while (clock64() < until) {}
  out[0] = a[0];
}
"""


def test_a_replay_marks_a_barrier_only_after_what_comes_before_it() -> None:
    net = ag.AsyncNet("slow")
    x = net.input("x", (1,), "int32")
    h = net.kernel(SLOW, "slow", [x], out=((1,), "int32"), grid=1, block=1, name="h")
    passed = net.barrier(h, name="passed")
    net.output(net.copy(h, name="y"))
    with net.compile(backend="cuda", mode="graph") as exe:
        exe.run(x=[1])
        for _ in range(2):
            begun = time.monotonic()
            run = exe.submit(x=[1])
            passed.wait(run, timeout_s=20)
            # The kernel before it takes 0.1 s or more; a mark that did not wait comes at once.
            assert time.monotonic() - begun > 0.05
            run.result(20)


def test_a_cancelled_run_starts_nothing_more() -> None:
    net, _, gate = gated()
    with net.compile(backend="cuda", mode="serial") as exe:
        run = exe.submit(x=X)
        time.sleep(0.05)
        assert run.cancel()
        gate.set()
        with pytest.raises(ag.RunCancelled):
            run.result(5)
        assert ag.to_numpy(exe.run(x=X)["y"]).shape == (SIZE,)


@pytest.mark.parametrize("mode", MODES)
def test_a_traced_run_tells_when_every_step_ran(mode: str) -> None:
    with diamond().compile(backend="cuda", mode=mode) as exe:
        plain = ag.to_numpy(exe.run(x=X)["z"])
        for _ in range(2):
            with exe.trace() as timeline:
                traced = ag.to_numpy(exe.run(x=X)["z"])
            np.testing.assert_array_equal(traced, plain)
            slices = timeline.runs[0].slices
            assert sorted(s.step for s in slices) == list(range(len(exe.plan.steps)))
            ends = {s.step: s.end_s for s in slices}
            starts = {s.step: s.start_s for s in slices}
            events = {s.records: i for i, s in enumerate(exe.plan.steps)}
            for i, step in enumerate(exe.plan.steps):
                assert 0 <= starts[i] <= ends[i]
                for event in step.waits:
                    assert ends[events[event]] <= starts[i] + 1e-5
        np.testing.assert_array_equal(ag.to_numpy(exe.run(x=X)["z"]), plain)


@pytest.mark.parametrize("mode", ["streams", "graph"])
def test_device_memory_stays_flat_and_comes_back(mode: str) -> None:
    import cupy

    def free() -> int:
        gc.collect()  # what earlier tests left in cycles would come back in the middle
        cupy.get_default_memory_pool().free_all_blocks()
        return cupy.cuda.runtime.memGetInfo()[0]

    net = diamond()
    with net.compile(backend="cuda", mode=mode):
        pass
    before = free()
    with net.compile(backend="cuda", mode=mode, slots=2) as exe:
        for _ in range(100):  # the second slot is made when a run finds the first one busy
            for run in [exe.submit(x=X + i) for i in range(6)]:
                run.result(20)
            if exe._engine._n_made == 2:
                break
        assert exe._engine._n_made == 2
        run = None
        during = free()
        for _ in range(10):
            for run in [exe.submit(x=X + i) for i in range(6)]:
                run.result(20)
        run = None
        assert free() == during
        assert during < before
    assert free() == before


def test_runs_can_be_awaited() -> None:
    async def several(exe: ag.Executable) -> list[np.ndarray]:
        runs = [exe.submit(x=X + i) for i in range(4)]
        return [ag.to_numpy((await run)["z"]) for run in runs]

    with diamond().compile(backend="cuda", mode="graph", slots=2) as exe:
        got = asyncio.run(several(exe))
        for i, array in enumerate(got):
            np.testing.assert_array_equal(array, ag.to_numpy(exe.run(x=X + i)["z"]))


def test_many_threads_submit_at_once() -> None:
    with (
        diamond().compile(backend="cpu", mode="serial") as oracle,
        diamond().compile(backend="cuda", mode="streams", slots=2) as exe,
    ):
        expected = [oracle.run(x=X + i)["z"] for i in range(4)]
        wrong: list[int] = []

        def work(i: int) -> None:
            for _ in range(5):
                if not np.array_equal(
                    ag.to_numpy(exe.submit(x=X + i).result(20)["z"]), expected[i]
                ):
                    wrong.append(i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
