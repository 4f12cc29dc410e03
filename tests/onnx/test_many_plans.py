"""An executable with many plans offers what one with a single plan does."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.staged_models import NOTHING_BOUND, counting
from onnx import TensorProto, helper, parser

import asyncnet_gpu as ag
from asyncnet_gpu.executor import Executable
from asyncnet_gpu.onnx import OnnxExecutable, StructuredExecutable, load_onnx

BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
Make = Callable[..., Any]

FREE = """
<ir_version: 9, opset_import: ["" : 18]>
free (float[N,8] x) => (float[N,8] y) { a = Relu (x)  b = Sigmoid (x)  y = Mul (a, b) }"""


def x(n: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(n).standard_normal((n, 8)).astype(np.float32)


def free(**options: Any) -> tuple[OnnxExecutable, dict[str, Any]]:
    exe = load_onnx(parser.parse_model(FREE)).compile(mode="streams", allocator="exact", **options)
    return exe, {"x": x(3)}


def structured(**options: Any) -> tuple[StructuredExecutable, dict[str, Any]]:
    rows = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(
        [helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0)], "g",
        [helper.make_value_info("s", helper.make_sequence_type_proto(rows))],
        [helper.make_value_info("y", rows)],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    parts = [np.full((n, 2), n, np.float32) for n in (1, 2)]
    return load_onnx(made).compile(mode="streams", **options), {"s": parts}


def staged(**options: Any) -> tuple[OnnxExecutable, dict[str, Any]]:
    exe = load_onnx(counting(), limits=NOTHING_BOUND).compile(mode="streams", **options)
    return exe, {"x": x(9), "limit": np.float32(1)}


KINDS = {"free": free, "structured": structured, "staged": staged}

#: What there is to do with a plain executable, and how. A new public method must be added here.
CALLS: dict[str, Callable[[Any, dict[str, Any]], object]] = {
    "backend": lambda exe, _: exe.backend,
    "plan": lambda exe, _: exe.plan.steps,
    "mode": lambda exe, _: exe.mode,
    "why": lambda exe, _: exe.why,
    "slots": lambda exe, _: exe.slots,
    "run": lambda exe, inputs: exe.run(inputs, timeout_s=60),
    "submit": lambda exe, inputs: exe.submit(inputs, deadline_s=60).result(60),
    "trace": lambda exe, inputs: traced(exe, inputs),
    "report": lambda exe, inputs: exe.report(inputs, rounds=1).elapsed_s,
    "get_parameter": lambda exe, _: exe.get_parameter("none"),
    "set_parameter": lambda exe, _: exe.set_parameter("none", 1),
    "__enter__": lambda exe, _: exe.__enter__(),
    "__exit__": lambda exe, _: exe.__exit__(None, None, None),
    "close": lambda exe, _: exe.close(),
}
ALWAYS = {"run", "submit", "__enter__", "__exit__", "close"}
PARAMETERS = {"get_parameter", "set_parameter"}  # these models have none
LEAVING = {"__exit__", "close"}


def traced(exe: Any, inputs: dict[str, Any]) -> int:
    with exe.trace(inputs, cpu_times=True) as timeline:
        exe.run(inputs)
    assert len(timeline.runs) == 1
    return len(timeline.runs[0].slices)


def public_names() -> set[str]:
    """Return what a plain executable has: methods, properties, attributes that it documents."""
    names = {n for n in dir(Executable) if not n.startswith("_")} | {"__enter__", "__exit__"}
    with ag.load_onnx(parser.parse_model(FREE), {"x": (1, 8)}).compile(backend="cpu") as plain:
        return names | {n for n in vars(plain) if not n.startswith("_")}


def test_every_public_name_of_a_plain_executable_is_walked() -> None:
    assert public_names() == CALLS.keys()


@pytest.mark.parametrize("kind", [OnnxExecutable, StructuredExecutable])
def test_methods_take_what_those_of_a_plain_executable_take(kind: type) -> None:
    for name in public_names() - {"backend"}:
        ours, theirs = (inspect.getattr_static(owner, name) for owner in (kind, Executable))
        assert isinstance(ours, property) == isinstance(theirs, property), name
        if isinstance(ours, property):
            continue
        taken = inspect.signature(ours).parameters
        for parameter in list(inspect.signature(theirs).parameters.values())[1:]:  # without self
            assert parameter.name in taken, f"{name}({parameter.name}) is missing"
            assert taken[parameter.name].kind == parameter.kind, f"{name}({parameter.name})"
            assert taken[parameter.name].default == parameter.default, f"{name}({parameter.name})"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLS)
def test_each_works_or_says_what_to_do(kind: str, name: str) -> None:
    exe, inputs = KINDS[kind](backend="cpu")
    with exe:
        for n_runs in range(2):
            takes_inputs = name in ("trace", "report")
            refused = (
                name in PARAMETERS
                or (n_runs == 0 and name not in ALWAYS and not takes_inputs)
                or (kind == "staged" and name not in ALWAYS)
            )
            if refused:
                with pytest.raises(ag.NetError, match=r"expected .*, got .*\. [A-Z]"):
                    CALLS[name](exe, inputs)
            else:
                assert CALLS[name](exe, inputs) is not None or name in LEAVING
            if name not in LEAVING:
                exe.run(inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_can_be_asked_after_the_end(kind: str) -> None:
    exe, inputs = KINDS[kind](backend="cpu")
    exe.run(inputs)
    exe.close()
    for name in CALLS.keys() - LEAVING - {"__enter__", "set_parameter"}:
        with pytest.raises(ag.AsyncNetError, match="closed"):
            CALLS[name](exe, inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_plan_used_last_or_that_of_the_inputs_given(backend: str) -> None:
    exe, _ = free(backend=backend)
    with exe:
        for n in (2, 5, 2):
            exe.run(x=x(n))
            assert exe.plan.graph.blobs["y"].spec.shape == (n, 8)
            assert exe.plan is exe.plan_for(x=x(n)).plan is exe.plan_for({"x": x(n)}).plan
        assert "a" in exe.explain("a", "y")
        assert exe.explain("a", "y") == exe.plan.explain("a", "y")
        with exe.trace() as timeline:
            exe.run(x=x(2))
            exe.submit(x=x(2)).result(60)
            exe.run(x=x(5))  # of another plan: carried out, not noted
        assert [len(run.slices) for run in timeline.runs] == [3, 3]
        with exe.trace(x=x(7)) as timeline:  # a plan that is not there yet
            exe.run(x=x(7))
        assert timeline.plan.graph.blobs["y"].spec.shape == (7, 8)
        with pytest.raises(ag.NetError, match="another plan"), exe.trace(x=x(7)):
            exe.run(x=x(2))
        with pytest.raises(ZeroDivisionError), exe.trace(x=x(7)):
            exe.run(x=x(2))
            raise ZeroDivisionError
        report = exe.report(x=x(4), rounds=1)
        assert report.n_steps == 3
        assert exe.plan.graph.blobs["y"].spec.shape == (4, 8)
        assert exe.report(rounds=1).n_steps == 3


def test_a_plan_that_is_traced_stays_although_it_falls_out() -> None:
    exe, _ = free(backend="cpu", max_plans=1)
    with exe:
        exe.run(x=x(1))
        with exe.trace() as timeline:
            plain = exe.plan_for(x=x(1))
            exe.run(x=x(1))
            for n in (2, 3):
                exe.run(x=x(n))
            assert plain.run(x=x(1))["y"].shape == (1, 8)  # not closed
        assert len(timeline.runs) == 2
        exe.run(x=x(4))  # the next look at the cache closes it
        with pytest.raises(ag.AsyncNetError, match="closed"):
            plain.run(x=x(1))


def test_the_stages_of_a_model() -> None:
    exe, inputs = staged(backend="cpu")
    with exe:
        assert exe.stages == (exe,)
        exe.run(inputs)
        first, second = exe.stages
        with first.trace() as early, second.trace() as late:
            exe.run(inputs)
            exe.submit(inputs).result(60)
        assert [len(t.runs) for t in (early, late)] == [2, 2]
        assert second.report(rounds=1).n_steps == len(second.plan.steps)
        assert exe.explain("above", "any") == first.explain("above", "any")
        assert exe.explain("chosen", "sums") == second.explain("chosen", "sums")
        assert exe.explain("any", "sums").startswith("any is in stage 1, sums in stage 2")
        with pytest.raises(ag.PlanError, match="nothing is called 'nowhere'"):
            exe.explain("any", "nowhere")
        with pytest.raises(ag.NetError, match=r"exe\.stages\[0\]\.plan"):
            exe.report()


@pytest.mark.parametrize("backend", BACKENDS)
def test_structured_models_in_flight(backend: str, tmp_path: Path) -> None:
    exe, inputs = structured(backend=backend, slots=2)
    wanted = np.concatenate(inputs["s"])
    with exe:
        runs = [exe.submit(inputs) for _ in range(4)] + [exe.submit(s=inputs["s"][:1])]
        for run in runs[:-1]:
            np.testing.assert_array_equal(ag.to_numpy(run.result(60)["y"]), wanted)
        np.testing.assert_array_equal(ag.to_numpy(runs[-1].result(60)["y"]), wanted[:1])
        with pytest.raises(ag.NetError, match="a list of values"):
            exe.submit(s=wanted)
        exe.run(inputs)
        with exe.trace() as timeline:
            exe.run(inputs)
        timeline.save(tmp_path / "trace.json")
        assert len(timeline.runs) == 1
        bad = exe.submit(s=[np.ones((2, 3), np.float32)])
        with pytest.raises(ag.ShapeError, match=r"s\[0\]"):
            bad.result(60)
        assert exe.submit(inputs).cancel() in (True, False)
    with pytest.raises(ag.AsyncNetError, match="closed"):
        exe.submit(inputs)


def test_looking_while_others_run() -> None:
    exe, _ = free(backend="cpu", max_plans=2)
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for n in np.random.default_rng(seed).integers(1, 5, 15):
                exe.run(x=x(int(n)))
                assert exe.plan.steps
                with exe.trace(x=x(int(n))):
                    exe.run(x=x(int(n)))
        except ag.NetError as error:  # in between another plan may have been used last
            if "another plan" not in str(error):
                problems.append(error)
        except BaseException as error:
            problems.append(error)

    with exe:
        threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert not problems, problems
