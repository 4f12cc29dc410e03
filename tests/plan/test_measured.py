"""Plans from measured times: streams follow the clock instead of the operators' estimates."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.graph import build_graph
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.verify import verify

MODEL = DeviceModel(
    flops_per_s=1e9, bytes_per_s=1e9, launch_s=1e-6, fixed_s=1e-6, handoff_s=10e-6,
    copy_bytes_per_s=1e9, lanes=2,
)  # fmt: skip


def copy(xp: Any, x: Any, *, out: Any) -> None:
    out[...] = x


def four_calls() -> ag.AsyncNet:
    """Four functions of the user's, of which nobody knows how long they take."""
    net = ag.AsyncNet("four")
    x = net.input("x", (8,), "float32")
    for name in "abcd":
        net.output(**{f"out_{name}": net.call(copy, x, shape=8, dtype="float32", name=name)})
    return net


def plan_of(net: ag.AsyncNet, **options: Any) -> Plan:
    plan = make_plan(place(build_graph(net)), device_kind="cpu", model=MODEL, **options)
    verify(plan)
    return plan


def streams_of(plan: Plan) -> dict[str, int]:
    return {plan.node_of(step).name: step.stream for step in plan.steps}


def test_what_the_model_believes_short_is_not_spread() -> None:
    assert len(plan_of(four_calls()).streams) == 1


def test_what_was_measured_long_is_spread_evenly() -> None:
    measured = {"a": 3.0, "b": 1.0, "c": 1.0, "d": 1.0}
    streams = streams_of(plan_of(four_calls(), measured=measured))
    assert streams["b"] == streams["c"] == streams["d"] != streams["a"]


def test_the_exact_allocator_issues_first_what_was_measured_longest() -> None:
    for longest in "abcd":
        measured = {name: 3.0 if name == longest else 1.0 for name in "abcd"}
        plan = plan_of(four_calls(), measured=measured, allocator="exact", max_streams=2)
        assert plan.node_of(plan.steps[0]).name == longest


def test_nodes_that_were_not_measured_are_modelled() -> None:
    assert len(plan_of(four_calls(), measured={"a": 3.0}).streams) == 1  # b, c, d: microseconds
    assert len(plan_of(four_calls(), measured={"a": 3.0, "b": 2.0}).streams) == 2


def test_any_times_give_a_plan_that_holds() -> None:
    rng = random.Random(3)
    for _ in range(50):
        measured = {name: rng.choice((0.0, rng.random() * 1e-4, 1e9)) for name in "abcd"}
        plan_of(four_calls(), measured=measured, allocator=rng.choice(("cost", "exact")))


@pytest.mark.parametrize(
    ("measured", "what"),
    [({"a": "1"}, "a: '1'"), ({"a": None}, "a: None"),
     ({"a": -1.0}, "a: -1.0"), ({"a": float("nan")}, "a: nan"), ({"b": float("inf")}, "b: inf"),
     ({"other": 1.0}, "another net")],
)  # fmt: skip
def test_wrong_times_are_refused(measured: dict[str, Any], what: str) -> None:
    with pytest.raises(ag.PlanError, match=what):
        four_calls().compile(backend="cpu", mode="streams", measured=measured)


def test_a_report_measures_what_compile_takes() -> None:
    net = ag.AsyncNet("towers")
    x = net.input("x", (300, 300), "float32")
    for tower in "ab":
        h = x
        for layer in range(3):
            h = net.matmul(h, h, name=f"{tower}{layer}")
        net.output(**{tower: h})
    inputs = {"x": np.eye(300, dtype=np.float32)}
    with net.compile(backend="cpu", mode="serial") as exe:
        want = exe.run(inputs)
        seconds = exe.report(inputs).node_seconds
    assert seconds.keys() == {f"{t}{k}" for t in "ab" for k in range(3)}
    assert min(seconds.values()) > 0
    with net.compile(backend="cpu", mode="streams", measured=seconds) as exe:
        got = exe.run(inputs)
    assert all((got[key] == want[key]).all() for key in want)
