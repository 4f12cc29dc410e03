"""The suite can fail: a plan that lacks a wait is caught, by the detector or by its answer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.cuda_nets import SIZE, diamond

import asyncnet_gpu as ag
from asyncnet_gpu.backends.base import AbstractBackend, Execution, ProgramOptions
from asyncnet_gpu.plan.types import Plan

pytestmark = pytest.mark.gpu

X = np.arange(SIZE, dtype=np.int32)


def without_waits(plan: Plan, step: int) -> Plan:
    steps = list(plan.steps)
    steps[step] = dataclasses.replace(steps[step], waits=())
    return dataclasses.replace(plan, steps=tuple(steps))


def run_plan(backend: AbstractBackend, plan: Plan) -> Execution:
    import cupy

    options = ProgramOptions(timeout_s=20)
    values = backend.load_values(plan, options)
    program = backend.program(plan, values, options)
    spec = plan.graph.blobs["x"].spec
    given = cupy.asarray(X)
    for _ in range(2):  # in the second run no allocation stops the device
        cupy.add(given, 1, out=given)  # on the caller's stream, which nobody waits for
        execution = Execution({"x": backend.adopt(given, spec, 0)})
        assert program.execute(execution, None)
    program.close()
    backend.close()
    return execution


def waiting_steps(plan: Plan) -> list[int]:
    return [i for i, step in enumerate(plan.steps) if step.waits]


def plan_of(mode: str) -> Plan:
    with diamond().compile(backend="cuda", mode=mode, allocator="exact") as exe:
        return exe.plan


@pytest.mark.parametrize("mode", ["streams", "graph"])
def test_the_plan_as_it_is_has_no_race(mode: str) -> None:
    execution = run_plan(ag.backends.load("cuda"), plan_of(mode))
    assert not execution.errors


@pytest.mark.planted_race
@pytest.mark.parametrize("mode", ["streams", "graph"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_wait_left_out_is_noticed(mode: str, which: int) -> None:
    plan = plan_of(mode)
    steps = waiting_steps(plan)
    run_plan(ag.backends.load("cuda"), without_waits(plan, steps[which % len(steps)]))


@pytest.mark.planted_race
def test_an_input_that_is_not_waited_for_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy

    from asyncnet_gpu.backends.cuda.frame import Frame

    monkeypatch.setattr(Frame, "enter", lambda self, inputs: None)
    plan = plan_of("streams")
    with cupy.cuda.Stream(non_blocking=True):
        run_plan(ag.backends.load("cuda"), plan)
