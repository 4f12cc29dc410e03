"""Export: every operator that ONNX has, checked, read back, and run by onnxruntime."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.onnx_models import textual
from onnx import parser

import asyncnet_gpu as ag
from asyncnet_gpu import ops
from asyncnet_gpu.errors import NetError, UnsupportedOpError
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx import Limits, export_model, load_onnx, save_onnx
from asyncnet_gpu.onnx.export import BASE_OPSET, plain_name, writers
from asyncnet_gpu.ops.base import Op, OpCase
from asyncnet_gpu.specs import TensorSpec

#: Operators that ONNX has no counterpart for; everything else must be exported.
INEXPRESSIBLE = {
    "assign", "assign_add", "assign_sub", "async_barrier", "async_net_barrier", "atan2", "call",
    "decode_float", "encode_float", "expm1", "kernel", "log1p",
    "random_normal", "random_uniform", "sgd_update",
}  # fmt: skip

#: Where onnxruntime gives something else than the operator's own reference, and why.
ORT_DIFFERS = {
    "argmax-last_nan": "NaN is not the largest there", "argmax-nan": "likewise",
    "argmin-last_nan": "likewise", "argmin-nan": "likewise",
    "global_max_pool-nan": "NaN is not the largest there",
    "max_pool-nan": "NaN is not the largest there", "max_pool_places-nan": "likewise",
    "reduce_mean-empty": "the mean of nothing is 0 there",
    "thresholded_relu-special": "NaN becomes 0 there",
}  # fmt: skip

#: Never given to onnxruntime: it refuses integers modulo 0, the lowest integer modulo -1 ends its
#: process, and it takes the C remainder of 64-bit integers in double precision.
NOT_FOR_ORT = {
    f"{name}-ends_{dtype}"
    for name in ("fmod", "mod")
    for dtype in ("int8", "int32", "int64", "uint8", "uint64")
}

#: The kinds of dtypes that ONNX has an operator for; every case of another kind must be refused.
#: (Only from operator set 28 on, which is not written, Mod takes floats and BitShift signed ones.)
KINDS_IN_ONNX = {"global_max_pool": "f", "mod": "iu", "shift_left": "u", "shift_right": "u"}

#: Other cases of dtypes and attributes that the ONNX operator does not take.
NOT_FOR_ONNX = {
    "cond-otherwise", "cond-then", "loop-backwards", "loop-never", "loop-running_sum", "loop-while",
    "celu-plain_float16", "celu-plain_float64", "cumprod-one_long_row", "cumsum-one_long_row",
    "dft-back", "dft-back_odd", "floor_div-signs_int32", "floor_div-signs_int64",
    "floor_div-signs_int8", "max_pool-int64", "reduce_l1-all_int8", "reduce_l1-all_uint8",
    "reduce_prod-all_int8", "reduce_prod-all_uint8", "reduce_sum-all_int8", "reduce_sum-all_uint8",
    "reduce_sum_square-all_int8", "reduce_sum_square-all_uint8", "relu-plain_uint8",
}  # fmt: skip

CASES = [
    pytest.param(op, case, id=f"{op.name}-{case.name}")
    for op in ops.registry().values()
    for case in op.cases
    if op.name not in INEXPRESSIBLE
]


def fill(spec: Any, case: OpCase, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    if not isinstance(spec, TensorSpec):
        return np.asarray(spec)
    if spec.dtype.kind == "b":
        return np.asarray(rng.random(spec.shape) < 0.5)
    if case.low is not None and case.high is not None:
        drawn = rng.uniform(case.low, case.high, spec.shape)
    elif spec.dtype.kind == "f":
        drawn = rng.standard_normal(spec.shape)
    else:
        drawn = rng.integers(0 if spec.dtype.kind == "u" else -4, 5, spec.shape).astype(float)
    return np.asarray(drawn).astype(spec.dtype)


def is_refused(op: Op, case: OpCase) -> bool:
    kinds = KINDS_IN_ONNX.get(op.name)
    other = kinds is not None and case.inputs[0].dtype.kind not in kinds
    return other or f"{op.name}-{case.name}" in NOT_FOR_ONNX


def net_of(op: Op, case: OpCase) -> tuple[AsyncNet, dict[str, np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    arrays = {f"in{i}": fill(spec, case, rng) for i, spec in enumerate(case.inputs)}
    net = AsyncNet(op.name)
    blobs = [net.input(name, a.shape, a.dtype) for name, a in arrays.items()]
    outs = net.add_node(op, blobs, case.attrs, name="the_node")
    net.output(**{f"out{i}": out for i, out in enumerate(outs)})
    return net, arrays


def run(net: Any, arrays: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    with net.compile(backend="cpu", mode="serial") as exe:
        return dict(exe.run({s.name: arrays[s.name] for s in net.sources if s.kind == "input"}))


def run_ort(model: onnx.ModelProto, arrays: dict[str, Any]) -> dict[str, Any] | None:
    """Run with onnxruntime; None where it has no kernel for the dtype."""
    import onnxruntime as runtime

    runtime.set_default_logger_severity(4)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1  # starting threads would take longer than the node
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, arrays), strict=True))
    except Exception as error:
        text = str(error)
        # Its own limits: kernels of few dtypes, odd LRN windows, mirrors no larger than the array,
        # two axes to resize cubically, two or three to sample.
        known = ("NOT_IMPLEMENTED", "running LRN", "lrn.h", "running Pad", "running Scatter",
                 "Pad should be smaller than kernel", "ScalesValidation",
                 "grid_sample.cc")  # fmt: skip
        if not any(word in text for word in known):
            raise
        return None


def assert_close(got: dict[str, Any], wanted: dict[str, Any], rtol: float, atol: float) -> None:
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
        np.testing.assert_allclose(
            got[name].astype(np.float64), array.astype(np.float64), rtol=rtol, atol=atol
        )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some cases divide by zero on purpose
@pytest.mark.parametrize(("op", "case"), CASES)
def test_case_goes_out_and_comes_back(op: Op, case: OpCase, request: Any) -> None:
    net, arrays = net_of(op, case)
    if is_refused(op, case):
        with pytest.raises(UnsupportedOpError, match="'the_node'"):
            export_model(net)
        return
    model = export_model(net)
    onnx.checker.check_model(model, full_check=True)
    wanted = run(net, arrays)
    half = any(a.dtype == np.float16 for a in arrays.values())
    tight = {"rtol": 4e-3 if half else 1e-5, "atol": 1e-3 if half else 1e-6}
    assert_close(run(load_onnx(model), arrays), wanted, **tight)
    theirs = None if f"{op.name}-{case.name}" in NOT_FOR_ORT else run_ort(model, arrays)
    if theirs is None:
        return
    loose = {"rtol": max(1e-3, case.rtol), "atol": max(1e-4, case.atol)}
    if f"{op.name}-{case.name}" in ORT_DIFFERS:
        with pytest.raises(AssertionError):
            assert_close(theirs, wanted, **loose)
    else:
        assert_close(theirs, wanted, **loose)


def test_every_operator_is_exported_or_declared() -> None:
    expressible = {n for n, op in ops.registry().items() if plain_name(op) or n in writers()}
    assert set(ops.registry()) - expressible == INEXPRESSIBLE
    assert not set(writers()) - set(ops.registry())


def test_every_declared_case_is_there() -> None:
    assert {*ORT_DIFFERS, *NOT_FOR_ORT, *NOT_FOR_ONNX} <= {case.id for case in CASES}


@pytest.mark.parametrize("upper", [True, False])
def test_diagonals_beyond_the_matrix_and_beyond_int64(upper: bool) -> None:
    x = {"x": np.arange(1, 13, dtype=np.float32).reshape(3, 4)}
    for k in (-(1 << 70), -(1 << 63), -4, -3, -2, 3, 4, 5, (1 << 63) - 1, 1 << 70):
        net = AsyncNet("diagonals")
        net.output(y=net.triangle(net.input("x", (3, 4), "float32"), k=k, upper=upper))
        model = export_model(net)
        kept = np.triu if upper else np.tril
        wanted = {"y": kept(x["x"], max(-9, min(k, 9)))}
        theirs = run_ort(model, x)
        assert theirs is not None
        for got in (run(net, x), run(load_onnx(model), x), theirs):
            assert_close(got, wanted, 0, 0)


def small_net() -> AsyncNet:
    net = AsyncNet("small")
    x = net.input("x", (2, 3, 8, 8), "float32")
    rng = np.random.default_rng(0)
    w = net.parameter("weights", rng.standard_normal((16, 3, 3, 3)).astype(np.float32))
    features = net.relu(net.conv2d(x, w, pads=1, name="features"), name="active")
    left, right = net.split(features, parts=2, axis=1, name=["left", "right"])
    net.barrier(left, right, name="gate")
    with net.device(1):
        turned = net.transpose(right, axes=(0, 1, 3, 2), name="turned")
    both = net.add(left, turned, name="both", after=["features"])
    net.exp(both, name="unused")
    rows = net.reshape(both, shape=(2, -1), name="rows")
    net.output(net.softmax(rows, name="probabilities"), logits=rows, again=rows)
    return net


def test_names_are_kept_and_order_is_left_out(tmp_path: Path) -> None:
    net = small_net()
    path = tmp_path / "small.onnx"
    net.to_onnx(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == BASE_OPSET
    nodes = {node.name: node.op_type for node in model.graph.node}
    assert nodes["features"] == "Conv"
    assert nodes["turned"] == "Transpose"
    assert "gate" not in nodes
    assert "unused" not in nodes
    assert [o.name for o in model.graph.output] == ["probabilities", "logits", "again"]
    assert "weights" in {t.name for t in model.graph.initializer}
    assert {"left", "right", "both", "rows"} <= {v.name for v in model.graph.value_info}
    x = {"x": np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    back = load_onnx(path)
    assert {d.name for d in back.definitions} >= {"features", "active", "both", "probabilities"}
    with net.compile(backend="cpu", devices=[0, 0]) as exe, back.compile(backend="cpu") as other:
        wanted, got = exe.run(x), other.run(x)
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)
    theirs = run_ort(model, x)
    assert theirs is not None
    assert_close(theirs, wanted, 1e-4, 1e-5)


def test_large_initializers_go_into_a_file_beside(tmp_path: Path) -> None:
    net = small_net()
    path = tmp_path / "small.onnx"
    save_onnx(net, path, external_bytes=100)
    save_onnx(net, path, external_bytes=100)  # written again, not appended to
    assert 1000 < (tmp_path / "small.onnx.data").stat().st_size < 10_000
    x = {"x": np.ones((2, 3, 8, 8), np.float32)}
    assert_close(run(load_onnx(path), x), run(small_net_on_one_device(), x), 0, 0)


def small_net_on_one_device() -> AsyncNet:
    return load_onnx(export_model(small_net()))  # type: ignore[return-value]


def test_the_first_inexpressible_node_is_named() -> None:
    net = AsyncNet("own")
    x = net.input("x", (3,), "float32")
    fine = net.relu(x, name="fine")
    mine = net.call(lambda xp, a, out: xp.negative(a, out=out), fine, shape=3, dtype="float32",
                    name="mine")  # fmt: skip
    net.output(net.atan2(mine, x, name="later"))
    with pytest.raises(UnsupportedOpError, match=r"node 'mine' \(call\).*test_export.py"):
        export_model(net)


def test_an_update_is_never_dropped(tmp_path: Path) -> None:
    net = AsyncNet("training")
    x = net.input("x", (3,), "float32")
    total = net.parameter("total", np.zeros(3, np.float32))
    net.assign_add(total, x, name="update")
    net.output(net.relu(x, name="y"))
    with pytest.raises(UnsupportedOpError, match="node 'update'"):
        net.to_onnx(tmp_path / "training.onnx")
    assert not list(tmp_path.iterdir())


def test_a_dtype_that_onnx_does_not_take_is_refused() -> None:
    net = AsyncNet("bytes")
    net.output(net.relu(net.input("x", (3,), "uint8"), name="y"))
    with pytest.raises(UnsupportedOpError, match="uint8 as input 0 of Relu"):
        export_model(net)


def test_names_that_collide() -> None:
    net = AsyncNet("names")
    x = net.input("x", (3,), "float32")
    a = net.relu(x, name="a")
    b = net.exp(a, name="b")
    net.output(a=b, b=a, c=x)
    arrays = {"x": np.array([-1, 0, 2], np.float32)}
    model = export_model(net)
    onnx.checker.check_model(model, full_check=True)
    assert_close(run(load_onnx(model), arrays), run(net, arrays), 0, 0)
    net.output(x=b)
    with pytest.raises(NetError, match="output 'x'"):
        export_model(net)


@pytest.mark.parametrize("kind", ["input", "parameter"])
def test_outputs_that_no_node_makes(kind: str) -> None:
    net = AsyncNet("direct")
    x = net.input("x", (3,), "float32")
    p = net.parameter("p", np.arange(3, dtype=np.float32))
    net.output(x if kind == "input" else p, y=net.relu(x))
    arrays = {"x": np.array([-1, 0, 2], np.float32)}
    model = export_model(net)
    onnx.checker.check_model(model, full_check=True)
    assert_close(run(load_onnx(model), arrays), run(net, arrays), 0, 0)
    theirs = run_ort(model, arrays)
    assert theirs is not None
    assert_close(theirs, run(net, arrays), 0, 0)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("name", ["if", "loop", "loop_to_a_limit", "scan"])
def test_nested_nets_go_out_as_graphs(name: str, nested: bool) -> None:
    net = load_onnx(textual()[name], limits=Limits(max_unrolled_nodes=0 if nested else 100))
    assert isinstance(net, AsyncNet)
    model = export_model(net)
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert bool(kinds & {"If", "Loop"}) is (nested or name in ("if", "loop"))
    x = np.arange(6, dtype=np.float32)
    for sign in (1, -1):
        arrays = {
            s.name: np.array(3) if s.name == "n" else sign * np.resize(x, s.spec.shape)
            for s in net.sources
            if s.kind == "input"
        }
        wanted = run(net, arrays)
        assert_close(run(load_onnx(model), arrays), wanted, 1e-6, 1e-6)
        theirs = run_ort(model, arrays)
        assert theirs is not None
        assert_close(theirs, wanted, 1e-6, 1e-6)


def test_scans_in_every_direction() -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]>
        agraph (float[2,3] x, float[3,2] z) => (last, a, b) {
            s = Constant <value = float[2] {0, 0}> ()
            last, a, b = Scan <num_scan_inputs = 2, scan_input_axes = [1, 0],
                scan_input_directions = [1, 0], scan_output_axes = [1, 0],
                scan_output_directions = [0, 1],
                body = g (float[2] s, float[2] p, float[2] q)
                    => (float[2] t, float[2] u, float[2] v)
                { t = Add (s, p)  u = Sub (t, q)  v = Mul (p, q) }> (s, x, z)
        }"""
    data = parser.parse_model(text).SerializeToString()
    net = load_onnx(data, limits=Limits(max_unrolled_nodes=0))
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((2, 3)), "z": rng.standard_normal((3, 2))}
    arrays = {name: a.astype(np.float32) for name, a in arrays.items()}
    model = export_model(net)  # type: ignore[arg-type]
    onnx.checker.check_model(model, full_check=True)
    wanted = run(net, arrays)
    assert_close(run(load_onnx(data), arrays), wanted, 1e-6, 1e-6)
    for theirs in (run_ort(model, arrays), run_ort(onnx.load_from_string(data), arrays)):
        assert theirs is not None
        assert_close(theirs, wanted, 1e-6, 1e-6)


def test_newer_operators_raise_the_operator_set() -> None:
    net = AsyncNet("new")
    x = net.input("x", (2, 4), "float32")
    net.output(net.cumprod(net.rms_norm(x, np.ones(4, np.float32)), axis=1, name="y"))
    assert export_model(net).opset_import[0].version == 26
    assert ag.AsyncNet("empty").name == "empty"
    with pytest.raises(NetError, match="no outputs"):
        export_model(ag.AsyncNet("empty"))
