"""Runs made for a report: the net as compiled, and each of its steps with nothing beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncnet_gpu.backends.base import AbstractBackend, Execution, ProgramOptions
from asyncnet_gpu.engine import Engine
from asyncnet_gpu.graph import Graph
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.types import Plan

Array = np.ndarray[Any, Any]


def example_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Return an array for each input: normal for floats, 0 or 1 for everything else; seeded."""
    random = np.random.default_rng(seed)
    made = {}
    for name in graph.inputs:
        spec = graph.blobs[name].spec
        if spec.dtype.kind in "fc":
            made[name] = np.asarray(random.standard_normal(spec.shape)).astype(spec.dtype)
        else:
            made[name] = np.asarray(random.integers(0, 2, spec.shape)).astype(spec.dtype)
    return made


def seconds_of_runs(engine: Engine, inputs: Mapping[str, Any], rounds: int) -> list[float]:
    """Return how long each of `rounds` runs took, on the host's clock."""
    seconds = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        engine.run(Execution(inputs), None)
        seconds.append(time.perf_counter() - start_s)
    return seconds


def measure_alone(
    plan: Plan, backend: AbstractBackend, values: Mapping[int, Any], options: ProgramOptions,
    inputs: Mapping[str, Any], rounds: int,
) -> dict[int, float]:  # fmt: skip
    """Return node id to the seconds it takes in a serial plan of the same graph, the least of all.

    Parameters
    ----------
    inputs
        Already adopted by the backend.
    """
    serial = make_plan(
        plan.graph, device_kind=plan.device_kind, model=backend.model(), mode="serial",
        alignment=plan.alignment,
    )  # fmt: skip
    engine = Engine(serial, backend, values, options, n_slots=1, queue=0, on_full="raise")
    alone: dict[int, float] = {}

    def note(_: int, execution: Execution) -> None:
        for part in execution.slices or ():
            node = serial.steps[part.step].node
            took_s = part.end_s - part.start_s
            alone[node] = min(took_s, alone.get(node, took_s))

    try:
        engine.run(Execution(inputs), None)  # warm: first touches of memory, compiled kernels
        engine.tracer = note
        for _ in range(rounds):
            engine.run(Execution(inputs), None)
    finally:
        engine.close()
    return alone
