"""Launches in a row go out as short graphs: the same bits, the same blame, the same cancelling."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu

Inject = Callable[[str, int, int], None]

LAUNCH_OUT_OF_RESOURCES = 701
LENGTH = 150
X = np.linspace(-2, 2, 32, dtype=np.float32)


def chains(n: int = 2, between: Callable[..., Any] | None = None) -> ag.AsyncNet:
    """Chains that do not need one another, joined at the end; `between` is a step of the first."""
    net = ag.AsyncNet("chains")
    x = net.input("x", (32,), "float32")
    ends = []
    for c in range(n):
        h = x
        for i in range(LENGTH):
            h = net.add(h, np.float32(1 + c), name=f"c{c}_{i}")
            if between is not None and c == 0 and i == LENGTH // 2:
                h = net.call(between, h, shape=(32,), dtype="float32", name="between")
        ends.append(h)
    net.output(**{f"y{c}": end for c, end in enumerate(ends)})
    return net


def wanted(x: np.ndarray[Any, Any], c: int) -> np.ndarray[Any, Any]:
    for _ in range(LENGTH):
        x = x + np.float32(1 + c)
    return x


def check(out: Any, x: np.ndarray[Any, Any], n: int = 2) -> None:
    for c in range(n):
        np.testing.assert_array_equal(ag.to_numpy(out[f"y{c}"]), wanted(x, c))


def issue_of(exe: ag.Executable) -> Any:
    return exe._engine._free[0].program._issue


@pytest.mark.parametrize("mode", ["serial", "streams"])
def test_chains_go_out_in_segments_and_give_the_same_bits(mode: str) -> None:
    from asyncnet_gpu.backends.cuda.segments import LONGEST, SHORTEST

    with chains().compile(backend="cuda", mode=mode, allocator="exact") as exe:
        issue = issue_of(exe)
        sizes = [len(m) for m in issue._members.values()]
        assert sizes
        assert all(SHORTEST <= size <= LONGEST for size in sizes)
        assert sum(sizes) >= 2 * (LENGTH - SHORTEST - 1)
        for members in issue._members.values():
            assert len({exe.plan.steps[issue.meaning[i].step].stream for i in members}) == 1
        for factor in (1, 2, 3):
            x = np.float32(factor) * X  # another address: the steps that read it are in no segment
            check(exe.run(x=x), x)
            check(exe.submit(x=x).result(20), x)


def test_the_order_within_a_stream_and_of_events_is_kept() -> None:
    """Replays the shortened list on paper, stream by stream."""
    from asyncnet_gpu.backends.cuda.issue import Kind

    net = ag.AsyncNet("mixed")
    x = net.input("x", (32,), "float32")
    h = [x, x, x]
    for i in range(120):
        for c in range(3):
            h[c] = net.add(h[c], np.float32(c))
        if i % 40 == 39:
            net.barrier(*h)
            h[i % 3] = net.add(h[0], h[1])
    net.output(*h)
    with net.compile(backend="cuda", mode="streams", allocator="exact") as exe:
        issue = issue_of(exe)
        steps = exe.plan.steps
        order = [i for p in issue._order for i in issue._members.get(p, (p,))]
        assert sorted(order) == list(range(len(issue.calls)))
        assert len(issue._order) < len(order)
        for number in range(len(exe.plan.streams)):
            mine = [
                i for i in order
                if steps[issue.meaning[i].step].stream == number
                and issue.meaning[i].kind is not Kind.DEVICE
            ]  # fmt: skip
            assert mine == sorted(mine)
        fences = [i for i in order if issue.meaning[i].kind in (Kind.WAIT, Kind.RECORD)]
        assert fences == sorted(fences)


@pytest.mark.parametrize("nth", [1, 2, 3, 6])
def test_a_segment_that_cannot_be_launched_goes_out_step_by_step(faults: Inject, nth: int) -> None:
    with chains(1).compile(backend="cuda", mode="streams") as exe:
        exe.run(x=X)
        faults("launch", nth, LAUNCH_OUT_OF_RESOURCES)
        try:
            check(exe.run(x=X), X, 1)
        except ag.DeviceError as error:
            assert "'c0_0'" in str(error)  # noqa: PT017 - one of two right ends
        faults("launch", 0, 0)
        check(exe.run(x=X), X, 1)


def test_a_step_that_fails_within_a_segment_is_blamed_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cupy

    def fails() -> None:
        raise cupy.cuda.driver.CUDADriverError(LAUNCH_OUT_OF_RESOURCES)

    with chains().compile(backend="cuda", mode="streams", allocator="exact") as exe:
        issue = issue_of(exe)
        members = next(iter(issue._members.values()))
        kept = [list(values) for values in (issue.calls, issue._short)]
        victim = members[len(members) // 2]
        issue.calls[victim] = fails
        issue._short[issue._order.index(members[0])] = fails
        name = exe.plan.node_of(exe.plan.steps[issue.meaning[victim].step]).name
        with pytest.raises(ag.DeviceError, match=f"'{name}'"):
            exe.run(x=X)
        issue.calls[:], issue._short[:] = kept
        check(exe.run(x=X), X)


def test_cancelling_stops_what_is_left_and_the_next_run_is_whole() -> None:
    inside, go_on = threading.Event(), threading.Event()
    ran: list[int] = []

    def between(xp: Any, a: Any, out: Any) -> None:
        inside.set()
        go_on.wait(20)
        out[...] = a

    with chains(1, between).compile(backend="cuda", mode="streams") as exe:
        issue = issue_of(exe)
        last = issue._order.index(max(issue._members))
        call = issue._short[last]
        issue._short[last] = issue._short_master[last] = lambda: (ran.append(1), call())
        run = exe.submit(x=X)
        assert inside.wait(20)
        run.cancel()
        go_on.set()
        with pytest.raises(ag.RunCancelled):
            run.result(20)
        assert not ran
        check(exe.run(x=X), X, 1)
        assert ran


def test_without_graphs_launches_go_out_one_by_one(faults: Inject) -> None:
    faults("graph", 1, LAUNCH_OUT_OF_RESOURCES)
    with chains().compile(backend="cuda", mode="streams") as exe:
        faults("graph", 0, 0)
        assert not issue_of(exe)._members
        check(exe.run(x=X), X)
