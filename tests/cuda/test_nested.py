"""Bodies of If, Loop and Scan on CUDA: bound as a plan is, right in any order, faults by name."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.loops import COND, LOOP, SIZE, load, matrix

import asyncnet_gpu as ag
from asyncnet_gpu.net import AsyncNet

pytestmark = pytest.mark.gpu

LAUNCH_OUT_OF_RESOURCES = 701


class Recorder:
    """What is bound while a net is compiled and runs."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        from asyncnet_gpu.backends.cuda import bound

        self.entries: list[str] = []
        self.through_cupy: list[str] = []
        pack, cupy_call = bound.pack, bound.BoundPlan._cupy_call

        def packed(launch: Any, *rest: Any) -> Any:
            self.entries.append(launch.entry)
            return pack(launch, *rest)

        def through_cupy(plan: Any, index: int) -> Any:
            self.through_cupy.append(plan._node(index).op.name)
            return cupy_call(plan, index)

        patch.setattr(bound, "pack", packed)
        patch.setattr(bound.BoundPlan, "_cupy_call", through_cupy)


@pytest.mark.parametrize(
    ("text", "kernels"),
    [
        (LOOP, ("Add", "softmax", "unary<long long, float")),
        (COND, ("Sigmoid", "Exp", "Sub", "scan")),
    ],
)
def test_steps_of_a_body_use_our_kernels(
    text: str, kernels: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = load(text)
    recorder = Recorder(monkeypatch)
    with net.compile(backend="cuda", mode="serial") as exe:
        exe.run(x=matrix(0))
    for kernel in kernels:
        assert any(kernel.lower() in entry.lower() for entry in recorder.entries), recorder.entries
    assert not recorder.through_cupy


def test_nothing_is_bound_again_for_an_input_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy

    with load(LOOP).compile(backend="cuda", mode="serial") as exe:
        exe.run(x=matrix(0))
        recorder = Recorder(monkeypatch)
        given = [cupy.asarray(matrix(seed)) for seed in range(3)]
        found = [exe.run(x=x) for x in given]
    assert not recorder.entries
    assert not recorder.through_cupy
    with load(LOOP).compile(backend="cpu", mode="serial") as exe:
        for seed, outputs in enumerate(found):
            for key, wanted in exe.run(x=matrix(seed)).items():
                np.testing.assert_allclose(outputs[key].get(), wanted, rtol=1e-4, atol=1e-5)


def test_a_loop_of_known_length_is_captured() -> None:
    net = load(LOOP)
    with net.compile(backend="cuda", mode="graph") as exe:
        assert exe._engine._free[0].program.captured
        found = exe.run(x=matrix(3))
    with net.compile(backend="cpu", mode="serial") as exe:
        for key, wanted in exe.run(x=matrix(3)).items():
            np.testing.assert_allclose(found[key].get(), wanted, rtol=1e-4, atol=1e-5)


# -- random nested nets ----------------------------------------------------------------------

UNARY = ("Tanh ({a})", "Sigmoid ({a})", "Neg ({a})", "Softmax <axis = -1> ({a})", "Identity ({a})",
         "Transpose <perm = [1, 0]> ({a})", "CumSum ({a}, axis)", "Gather <axis = 0> ({a}, order)",
         "Slice ({a}, from, to, ax)")  # fmt: skip
BINARY = ("Add ({a}, {b})", "MatMul ({a}, {b})", "Max ({a}, {b})", "Sub ({a}, {b})")


class Writer:
    """Random nodes over matrices; scopes nest, names do not repeat."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def block(self, known: list[str], n: int, depth: int) -> tuple[list[str], list[str]]:
        """Return lines and the names that they define."""
        lines, made = [], []
        for _ in range(n):
            scope = known + made
            pick = self.random.random()
            makers = {0: self.branch, 1: self.loop, 2: self.scan}
            if depth and (pick < 0.4 or not (known[2:] or made)):
                text, names = makers[self.random.randrange(3)](scope, depth - 1)
            else:
                form = self.random.choice(UNARY if pick < 0.75 else BINARY)
                a, b = self.random.choice(scope), self.random.choice(scope)
                names = [self.name()]
                text = f"{names[0]} = {form.format(a=a, b=b)}"
            lines.append(text)
            made += names
        return lines, made

    def branch(self, scope: list[str], depth: int) -> tuple[str, list[str]]:
        s, c, y = self.name(), self.name(), self.name()
        of = self.random.choice(scope)
        ways = []
        for way in ("then", "else"):
            lines, made = self.block(scope, self.random.randint(1, 3), depth)
            result = made[-1]
            ways.append(f"{way}_branch = g{self.name()} () => ({result}) {{ {' '.join(lines)} }}")
        return (f"{s} = ReduceSum <keepdims = 0> ({of}) {c} = Greater ({s}, zero) "
                f"{y} = If ({c}) < {', '.join(ways)} >"), [y]  # fmt: skip

    def loop(self, scope: list[str], depth: int) -> tuple[str, list[str]]:
        i, c, d, s, t, y, z = (self.name() for _ in range(7))
        lines, made = self.block([*scope, s, t], self.random.randint(1, 3), depth)
        r, q = self.random.choice([*made, t]), self.random.choice([*made, s])
        r1, q1 = self.name(), self.name()
        body = f"{' '.join(lines)} {d} = Identity ({c}) {r1} = Tanh ({r}) {q1} = Identity ({q})"
        first, second = self.random.choice(scope), self.random.choice(scope)
        return (f"{y}, {z} = Loop (n, , {first}, {second}) <body = g{self.name()} (int64 {i}, "
                f"bool {c}, float[6,6] {s}, float[6,6] {t}) => (bool {d}, float[6,6] {r1}, "
                f"float[6,6] {q1}) {{ {body} }}>"), [y, z]  # fmt: skip

    def scan(self, scope: list[str], depth: int) -> tuple[str, list[str]]:
        s, x, y, z = (self.name() for _ in range(4))
        m, k, p, o = (self.name() for _ in range(4))
        lines, made = self.block([*scope, s], self.random.randint(1, 2), depth)
        body = f"{' '.join(lines)} {m} = Add ({x}, {made[-1]}) {k} = Tanh ({m}) "
        body += f"{p} = ReduceMax <keepdims = 0> ({k}, ax) {o} = Add ({p}, {x})"
        attrs = (f"num_scan_inputs = 1, scan_input_axes = [{self.random.randrange(2)}], "
                 f"scan_input_directions = [{self.random.randrange(2)}], "
                 f"scan_output_axes = [{self.random.randrange(2)}], "
                 f"scan_output_directions = [{self.random.randrange(2)}]")  # fmt: skip
        start, over = self.random.choice(scope), self.random.choice(scope)
        text = (f"{y}, {z} = Scan <{attrs}, body = g{self.name()} (float[6,6] {s}, float[6] {x}) "
                f"=> (float[6,6] {k}, float[6] {o}) {{ {body} }}> ({start}, {over})")  # fmt: skip
        return text, [y, z]

    def net(self) -> AsyncNet:
        lines, made = self.block(["x", "w"], 5, 2)
        constants = """n = Constant <value = int64 {3}> () zero = Constant <value = float {0}> ()
            axis = Constant <value = int64 {0}> ()
            order = Constant <value = int64[6] {3, 1, 0, 5, 2, 4}> ()
            from = Constant <value = int64[1] {-1}> ()
            to = Constant <value = int64[1] {-7}> ()
            steps = Constant <value = int64[1] {-1}> ()
            ax = Constant <value = int64[1] {0}> ()"""
        body = " ".join(lines).replace(", from, to, ax)", ", from, to, ax, steps)")
        return load(
            f"agraph (float[6,6] x, float[6,6] w) => ({', '.join(made)}) {{ {constants} {body} }}"
        )


@pytest.mark.parametrize("mode", ["streams", "graph"])
@pytest.mark.parametrize("seed", range(8))
def test_random_nested_nets_give_what_the_cpu_gives(seed: int, mode: str) -> None:
    import cupy

    net = Writer(seed).net()
    assert {d.op.name for d in net.definitions} & {"cond", "loop"}
    inputs = [(matrix(2 * i), matrix(2 * i + 1)) for i in range(3)]
    with net.compile(backend="cpu", mode="serial") as exe:
        expected = [exe.run(x=x, w=w) for x, w in inputs]
    with net.compile(backend="cuda", mode=mode, slots=2) as exe:
        given = [(cupy.asarray(x), cupy.asarray(w)) for x, w in inputs]
        runs = [exe.submit(x=x, w=w) for x, w in (*given, *given)]
        for run, wanted in zip(runs, expected * 2, strict=True):
            for key, value in run.result(60).items():
                np.testing.assert_allclose(value.get(), wanted[key], rtol=1e-3, atol=1e-4)


# -- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [LOOP, COND])
def test_a_launch_that_fails_in_a_body_is_blamed_by_name(
    text: str, faults: Callable[[str, int, int], None]
) -> None:
    net = load(text)
    x = np.abs(matrix(0))
    with net.compile(backend="cpu", mode="serial") as exe:
        expected = exe.run(x=x)
    with net.compile(backend="cuda", mode="serial") as exe:
        exe.run(x=x)
        texts = []
        for nth in range(1, 12):
            faults("launch", nth, LAUNCH_OUT_OF_RESOURCES)
            try:
                exe.run(x=x)
            except ag.DeviceError as error:
                texts.append(str(error))
            faults("launch", 0, 0)
            for key, wanted in exe.run(x=x).items():
                np.testing.assert_allclose(wanted.get(), expected[key], rtol=1e-4, atol=1e-5)
    inner = [t for t in texts if "of net" in t.split("expected it to finish")[-1]]
    assert inner
    names = ("'g'", "'r'", "'f'") if text is LOOP else ("'u'", "'v'", "'a'")
    assert any(name in t for t in inner for name in names), inner


def test_an_error_of_a_step_keeps_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncnet_gpu.backends.cuda import nested

    def broken(self: Any) -> None:
        def fail() -> None:
            raise LookupError("planted")

        self._calls[-1] = fail
        plain(self)

    plain = nested.NestedPlan.__call__
    monkeypatch.setattr(nested.NestedPlan, "__call__", broken)
    with (
        load(LOOP).compile(backend="cuda", mode="serial") as exe,
        pytest.raises(LookupError, match=r"planted \(in .* of net ") as caught,
    ):
        exe.run(x=matrix(0))
    assert isinstance(caught.value, ag.DeviceError)


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("timeout_s", [None, 0.3])
@pytest.mark.parametrize("how", ["run", "submit"])
def test_a_condition_that_never_comes_does_not_hang_the_caller(
    how: str, timeout_s: float | None
) -> None:
    import cupy

    go_on = threading.Event()
    stream = cupy.cuda.Stream(non_blocking=True)
    with load(COND).compile(backend="cuda", mode="streams", timeout_s=0.3) as exe:
        with stream:
            given = cupy.asarray(matrix(0))
            stream.launch_host_func(lambda _: go_on.wait(20), None)
            begun = time.monotonic()
            with pytest.raises(ag.DeadlineExceeded):
                if how == "run":
                    exe.run(x=given, timeout_s=timeout_s)
                else:
                    exe.submit(x=given).result(timeout_s)
            assert time.monotonic() - begun < 5
            go_on.set()
            stream.synchronize()
        assert exe.run(x=matrix(0), timeout_s=20)["y"].shape == (SIZE, SIZE)
