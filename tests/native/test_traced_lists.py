"""Traced runs of lists: the C function notes the times, the slices are those of the steps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.backends.base import HostSlice

N = 100_000


def mixed_net(fails: list[bool]) -> ag.AsyncNet:
    """Two branches of lists, one of them with a function of Python's inside."""

    def double(xp: Any, a: Any, out: Any) -> None:
        if fails[0]:
            raise ValueError("asked to")
        xp.add(a, a, out=out)

    net = ag.AsyncNet("mixed")
    x = net.input("x", (N,), "float64")
    left = net.tanh(x, name="left0")
    left = net.call(double, left, shape=(N,), dtype="float64", name="left1")
    left = net.exp(left, name="left2")
    right = x
    for i in range(4):
        right = net.tanh(net.exp(right), name=f"right{i}")
    net.output(y=net.add(left, right, name="met"))
    return net


def by_thread(host: list[HostSlice]) -> dict[str, list[HostSlice]]:
    found: dict[str, list[HostSlice]] = {}
    for part in host:
        found.setdefault(part.thread, []).append(part)
    return found


@pytest.mark.parametrize("cpu_times", [False, True])
@pytest.mark.parametrize("mode", ["serial", "streams"])
def test_every_step_has_its_time_in_the_order_of_its_stream(mode: str, cpu_times: bool) -> None:
    x = np.full(N, 0.25)
    with mixed_net([False]).compile(backend="cpu", mode=mode, allocator="exact") as exe:
        plain = exe.run(x=x)["y"]
        with exe.trace(cpu_times=cpu_times) as timeline:
            for _ in range(3):
                np.testing.assert_array_equal(exe.run(x=x)["y"], plain)
        plan = exe.plan
    for run in timeline.runs:
        assert sorted(part.step for part in run.slices) == list(range(len(plan.steps)))
        assert sum(part.what == "wait" for part in run.host) == sum(
            len(step.waits) for step in plan.steps
        )
        for parts in by_thread(run.host).values():
            assert all(part.start_s <= part.end_s for part in parts)
            assert all(a.end_s <= b.start_s for a, b in pairwise(parts))
            assert parts[0].start_s >= 0
            assert parts[-1].end_s <= run.elapsed_s
            assert all((part.cpu_s is not None) == cpu_times for part in parts)
        ends = {part.step: part.end_s for part in run.slices}
        starts = {part.step: part.start_s for part in run.slices}
        recorded = {step.records: i for i, step in enumerate(plan.steps)}
        for i, step in enumerate(plan.steps):
            for event in step.waits:  # what is waited for was over before
                assert ends[recorded[event]] <= starts[i] + 1e-9
        if cpu_times:
            work_s = sum(part.cpu_s or 0.0 for part in run.host if part.what == "run")
            assert work_s > 0.0


@pytest.mark.parametrize("mode", ["serial", "streams"])
def test_a_traced_run_that_fails_has_the_times_of_what_ran(mode: str) -> None:
    fails = [True]
    x = np.full(N, 0.25)
    with mixed_net(fails).compile(backend="cpu", mode=mode, allocator="exact", slots=1) as exe:
        with exe.trace() as timeline, pytest.raises(ValueError, match="asked to"):
            exe.run(x=x)
        names = {exe.plan.node_of(exe.plan.steps[s.step]).name for s in timeline.runs[0].slices}
        assert "left0" in names
        assert {f"right{i}" for i in range(3)} <= names  # the last is part of the chain "met"
        assert not names & {"left1", "left2", "met"}
        fails[0] = False
        with exe.trace() as timeline:
            exe.run(x=x)
        assert len(timeline.runs[0].slices) == len(exe.plan.steps)
