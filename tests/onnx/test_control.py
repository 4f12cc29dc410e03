"""If, Loop and Scan: decided while loading where that is possible, nested nets otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.onnx_models import textual
from onnx import ModelProto, parser

from asyncnet_gpu.errors import OnnxImportError
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx import Limits, OnnxNet, load_onnx

HEAD = '<ir_version: 9, opset_import: ["" : 18]>'
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
X = np.array([1, -2, 3, 4], np.float32)


def load(text: str, **options: Any) -> Any:
    made: ModelProto = parser.parse_model(f"{HEAD} {text}")
    return load_onnx(made.SerializeToString(), **options)


def run(net: Any, backend: str = "cpu", mode: str = "streams", **arrays: Any) -> dict[str, Any]:
    with net.compile(backend=backend, mode=mode) as exe:
        found = exe.run(arrays)
        return {n: np.asarray(a.get() if hasattr(a, "get") else a) for n, a in found.items()}


def operators(net: AsyncNet) -> list[str]:
    return [d.op.name for d in net.definitions]


BRANCHES = """agraph (float[4] x, {condition}) => (y) {{
    {made}
    y = If (c) <
        then_branch = t () => (a) {{ a = Add (x, x) }},
        else_branch = e () => (b) {{ two = Constant <value = float {{2}}> () p = Pow (x, two)
                                    b = Neg (p) }}
    >
}}"""


def test_a_constant_condition_leaves_one_branch() -> None:
    for value, expected in ((1, ["add"]), (0, ["pow", "neg"])):
        made = f"c = Constant <value = bool {{{value}}}> ()"
        net = load(BRANCHES.format(condition="float[1] unused", made=made))
        assert operators(net) == expected


def test_a_switch_that_the_caller_gives_makes_a_plan_each() -> None:
    net = load(BRANCHES.format(condition="bool c", made=""))
    assert isinstance(net, OnnxNet)
    assert net.bound == {"c"}
    with net.compile(backend="cpu") as exe:
        np.testing.assert_array_equal(exe.run(x=X, c=np.array(True))["y"], 2 * X)
        np.testing.assert_array_equal(exe.run(x=X, c=np.array(False))["y"], -(X**2))
        assert exe.n_plans == 2
    fixed = load(BRANCHES.format(condition="bool c", made=""), values={"c": True})
    assert operators(fixed) == ["add"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_data_decide_between_nested_nets(backend: str) -> None:
    net = load_onnx(textual()["if"])
    assert isinstance(net, AsyncNet)
    assert operators(net)[-1] == "cond"
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for mode in ("serial", "streams"):
        np.testing.assert_array_equal(run(net, backend, mode, x=x)["y"], 2 * x)
        np.testing.assert_array_equal(run(net, backend, mode, x=-x)["y"], x)


def test_branches_of_different_shapes_need_a_known_condition() -> None:
    text = """agraph (float[4] x) => (y) {
        s = ReduceSum <keepdims = 0> (x)
        zero = Constant <value = float {0}> ()
        c = Greater (s, zero)
        y = If (c) <
            then_branch = t () => (a) { a = Neg (x) },
            else_branch = e () => (b) { b = Concat <axis = 0> (x, x) }
        >
    }"""
    net = load(text)
    assert isinstance(net, OnnxNet)  # x itself is bound: it is small enough
    assert run(net, x=X)["y"].shape == (4,)
    assert run(net, x=-X)["y"].shape == (8,)
    cut = load(text, limits=Limits(max_bound_bytes=4))  # x is not: the condition is, in a stage
    assert run(cut, x=X)["y"].shape == (4,)
    assert run(cut, x=-X)["y"].shape == (8,)


@pytest.mark.parametrize("unrolled", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_loops_unrolled_and_nested_agree(backend: str, unrolled: bool) -> None:
    text = """agraph (float[4] x) => (y) {
        n = Constant <value = int64 {5}> ()
        y = Loop (n, , x) <body = b (int64 i, bool c, float[4] s) => (bool d, float[4] r) {
            d = Identity (c)
            f = Cast <to = 1> (i)
            t = Add (s, x)
            r = Sub (t, f)
        }>
    }"""
    net = load(text, limits=Limits() if unrolled else Limits(max_unrolled_nodes=0))
    assert ("loop" in operators(net)) is not unrolled
    np.testing.assert_array_equal(run(net, backend, x=X)["y"], 6 * X - 10)


@pytest.mark.parametrize("unrolled", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_states_change_places_and_are_given_as_they_were(backend: str, unrolled: bool) -> None:
    net = load(
        """agraph (float[4] x) => (y, z, all) {
            n = Constant <value = int64 {3}> ()
            h = Neg (x)
            y, z, all = Loop (n, , x, h) <
                body = b (int64 i, bool c, float[4] s, float[4] t) =>
                    (bool d, float[4] r, float[4] q, float[4] o) {
                    d = Identity (c)
                    r = Identity (t)
                    q = Add (s, s)
                    o = Identity (s)
                }
            >
        }""",
        limits=Limits() if unrolled else Limits(max_unrolled_nodes=0),
    )
    outputs = run(net, backend, x=X)
    np.testing.assert_array_equal(outputs["y"], 2 * -X)
    np.testing.assert_array_equal(outputs["z"], 4 * X)
    np.testing.assert_array_equal(outputs["all"], [X, -X, 2 * X])


@pytest.mark.parametrize("unrolled", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_each_pass_gives_is_collected(backend: str, unrolled: bool) -> None:
    limits = Limits() if unrolled else Limits(max_unrolled_nodes=0)
    net = load_onnx(textual()["loop_to_a_limit"], limits=limits)
    assert ("loop" in operators(net)) is not unrolled
    outputs = run(net, backend, x=X)
    np.testing.assert_allclose(outputs["y"], 6 * X)
    rows = -X * np.arange(2, 7, dtype=np.float32)[:, None]
    np.testing.assert_allclose(outputs["all"], rows, rtol=1e-6)


def test_results_of_as_many_passes_as_the_data_say_have_no_shape() -> None:
    text = """agraph (float[4] x, float limit) => (y, all) {
        t = Constant <value = bool {1}> ()
        n = Constant <value = int64 {7}> ()
        y, all = Loop (n, t, x) <body = b (int64 i, bool c, float[4] s) =>
            (bool d, float[4] r, float[4] o) {
                r = Add (s, x)
                o = Neg (r)
                total = ReduceSum <keepdims = 0> (r)
                d = Less (total, limit)
        }>
    }"""
    net = load(text)
    assert isinstance(net, OnnxNet)  # x and the limit are bound: only so is the length known
    outputs = run(net, x=X, limit=np.array(20, np.float32))
    assert outputs["all"].shape == (3, 4)
    with pytest.raises(OnnxImportError, match="at most 3 bytes"):
        run(load(text, limits=Limits(max_bound_bytes=3)), x=X, limit=np.array(20, np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_loop_of_as_many_passes_as_the_data_say(backend: str, count: int) -> None:
    net = load_onnx(textual()["loop"])
    # `n` is a single number that a caller gives: it is read by the loop, not bound.
    arrays = {"x": X, "n": np.array(count)}
    outputs = run(net, backend, **arrays)
    np.testing.assert_array_equal(outputs["y"], X * 2**count)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_until_the_data_say_stop(backend: str) -> None:
    net = load("""agraph (float[4] x) => (y, passes) {
        t = Constant <value = bool {1}> ()
        zero = Constant <value = int64 {0}> ()
        limit = Constant <value = float {100}> ()
        y, passes = Loop (, t, x, zero) <
            body = b (int64 i, bool c, float[4] s, int64 n) => (bool d, float[4] r, int64 m) {
                r = Add (s, s)
                one = Constant <value = int64 {1}> ()
                m = Add (n, one)
                total = ReduceSum <keepdims = 0> (r)
                d = Less (total, limit)
            }
        >
    }""")
    assert operators(net)[-1] == "loop"
    outputs = run(net, backend, x=X)
    # 6 * 2**k reaches 100 at k = 5.
    assert outputs["passes"] == 5
    np.testing.assert_array_equal(outputs["y"], 32 * X)


@pytest.mark.parametrize("unrolled", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_scans_unrolled_and_nested_agree(backend: str, unrolled: bool) -> None:
    limits = Limits() if unrolled else Limits(max_unrolled_nodes=0)
    net = load_onnx(textual()["scan"], limits=limits)
    assert ("loop" in operators(net)) is not unrolled
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    outputs = run(net, backend, x=x)
    np.testing.assert_array_equal(outputs["z"], x.sum(0))
    np.testing.assert_array_equal(outputs["y"], x.cumsum(0))


def test_nested_nets_see_names_around_them_on_every_level() -> None:
    net = load("""agraph (float[4] x, float[4] away) => (y) {
        s = ReduceSum <keepdims = 0> (x)
        zero = Constant <value = float {0}> ()
        c = Greater (s, zero)
        y = If (c) <
            then_branch = t () => (a) {
                u = Add (x, away)
                g = Greater (u, zero)
                h = Cast <to = 6> (g)
                n = ReduceMin <keepdims = 0> (h)
                inner = Cast <to = 9> (n)
                a = If (inner) <
                    then_branch = tt () => (p) { p = Mul (u, away) },
                    else_branch = te () => (q) { q = Sub (away, u) }
                >
            },
            else_branch = e () => (b) { b = Identity (away) }
        >
    }""")
    assert operators(net)[-1] == "cond"
    one = np.ones(4, np.float32)
    big = 5 * one
    np.testing.assert_array_equal(run(net, x=X, away=big)["y"], (X + big) * big)
    np.testing.assert_array_equal(run(net, x=X, away=one)["y"], one - (X + one))
    np.testing.assert_array_equal(run(net, x=-X, away=one)["y"], one)


def test_results_of_a_branch_run_beside_other_nodes() -> None:
    """A nested net is one node: what is independent of it overlaps with it as with any other."""
    net = load("""agraph (float[4] x) => (y, z) {
        s = ReduceSum <keepdims = 0> (x)
        zero = Constant <value = float {0}> ()
        c = Greater (s, zero)
        y = If (c) <
            then_branch = t () => (a) { a = Exp (x) },
            else_branch = e () => (b) { b = Neg (x) }
        >
        z = Tanh (x)
    }""")
    serial, streams = run(net, mode="serial", x=X), run(net, mode="streams", x=X)
    assert all(np.array_equal(serial[name], streams[name]) for name in ("y", "z"))
