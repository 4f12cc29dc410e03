"""Operator sets from 7 to the newest: the same function in every form that ONNX gave it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.onnx_models import exported, textual
from onnx import ModelProto, defs, parser, version_converter

from asyncnet_gpu.errors import OnnxImportError
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx import load_onnx

NEWEST = defs.onnx_opset_version()
X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).standard_normal((1, 2, 4, 4)).astype(np.float32)


def run(model: ModelProto, arrays: dict[str, Any]) -> dict[str, Any]:
    net = load_onnx(model)
    with net.compile(backend="cpu", mode="serial") as exe:
        return dict(exe.run(arrays))


def model_text(opset: int, given: str, body: str) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> agraph ({given}) => (y) {{ {body} }}'


def softmax(x: Any, axis: int) -> Any:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def flat_softmax(x: Any, axis: int) -> Any:
    """Before set 13 everything from `axis` on was one vector."""
    rows = x.reshape(int(np.prod(x.shape[:axis])), -1)
    return softmax(rows, 1).reshape(x.shape)


def ints(name: str, *values: int) -> str:
    return f"{name} = Constant <value = int64[{len(values)}] {{{', '.join(map(str, values))}}}> ()"


#: For each function: (first set, last set, body on ``x``, expected).
FORMS: dict[str, list[tuple[int, int, str, Any]]] = {
    "squeeze": [
        (7, 12, "u = Unsqueeze <axes = [1]> (x) y = Squeeze <axes = [1]> (u)", X),
        (13, NEWEST, f"{ints('a', 1)} u = Unsqueeze (x, a) y = Squeeze (u, a)", X),
    ],
    "sum": [
        (7, 12, "y = ReduceSum <axes = [1], keepdims = 0> (x)", X.sum(1)),
        (13, NEWEST, f"{ints('a', 1)} y = ReduceSum <keepdims = 0> (x, a)", X.sum(1)),
    ],
    "mean": [
        (7, 17, "y = ReduceMean <axes = [-1]> (x)", X.mean(-1, keepdims=True)),
        (18, NEWEST, f"{ints('a', -1)} y = ReduceMean (x, a)", X.mean(-1, keepdims=True)),
    ],
    "softmax": [
        (7, 12, "y = Softmax <axis = 1> (x)", flat_softmax(X, 1)),
        (7, 12, "y = Softmax (x)", flat_softmax(X, 1)),
        (13, NEWEST, "y = Softmax <axis = 1> (x)", softmax(X, 1)),
        (13, NEWEST, "y = Softmax (x)", softmax(X, -1)),
    ],
    "clip": [
        (7, 10, "y = Clip <min = -0.5, max = 0.5> (x)", X.clip(-0.5, 0.5)),
        (7, 10, "y = Clip <max = 0.5> (x)", X.clip(None, 0.5)),
        (11, NEWEST, "h = Constant <value = float {0.5}> () y = Clip (x, , h)", X.clip(None, 0.5)),
    ],
    "pad": [
        (7, 10, "y = Pad <pads = [0,0,1,0,0,2], value = 3.0> (x)",
         np.pad(X, ((0, 0), (0, 0), (1, 2)), constant_values=3)),
        (11, NEWEST, (f"{ints('p', 0, 0, 1, 0, 0, 2)} v = Constant <value = float {{3}}> ()"
         " y = Pad (x, p, v)"), np.pad(X, ((0, 0), (0, 0), (1, 2)), constant_values=3)),
        (18, NEWEST, (f"{ints('p', 1, 2)} {ints('a', 2)} v = Constant <value = float {{3}}> ()"
         " y = Pad (x, p, v, a)"), np.pad(X, ((0, 0), (0, 0), (1, 2)), constant_values=3)),
    ],
    "slice": [
        (7, 9, "y = Slice <starts = [1, -3], ends = [9, -1], axes = [1, 2]> (x)", X[:, 1:9, -3:-1]),
        (10, NEWEST, (f"{ints('s', 1, -3)} {ints('e', 9, -1)} {ints('a', 1, 2)}"
         " y = Slice (x, s, e, a)"), X[:, 1:9, -3:-1]),
        (10, NEWEST, (f"{ints('s', -1)} {ints('e', -99)} {ints('a', 2)} {ints('t', -2)}"
         " y = Slice (x, s, e, a, t)"), X[:, :, ::-2]),
    ],
    "split": [
        (7, 12, "p, y = Split <axis = 1, split = [1, 2]> (x)", X[:, 1:]),
        (13, NEWEST, f"{ints('s', 1, 2)} p, y = Split <axis = 1> (x, s)", X[:, 1:]),
        (7, 17, "p, y = Split <axis = 2> (x)", X[:, :, 2:]),
        (18, NEWEST, "p, y = Split <axis = 1, num_outputs = 2> (x)", X[:, 2:]),
    ],
    "top_k": [
        (7, 9, "y, i = TopK <k = 2> (x)", -np.sort(-X, -1)[..., :2]),
        (10, NEWEST, f"{ints('k', 2)} y, i = TopK (x, k)", -np.sort(-X, -1)[..., :2]),
        (11, NEWEST, f"{ints('k', 2)} y, i = TopK <largest = 0> (x, k)", np.sort(X, -1)[..., :2]),
    ],
    "dropout": [
        (7, 11, "y = Dropout <ratio = 0.5> (x)", X),
        (12, NEWEST, "r = Constant <value = float {0.5}> () y = Dropout (x, r)", X),
    ],
    "argmax": [
        (7, NEWEST, "i = ArgMax <axis = 1, keepdims = 0> (x) y = Cast <to = 1> (i)",
         X.argmax(1).astype(np.float32)),
    ],
    "pow": [
        (7, NEWEST, "t = Constant <value = float {2}> () y = Pow (x, t)", X**2),
        (12, NEWEST, "t = Constant <value = int32 {2}> () y = Pow (x, t)", X**2),
    ],
    "cumsum": [(11, NEWEST, "a = Constant <value = int32 {1}> () y = CumSum (x, a)", X.cumsum(1))],
    "where": [
        (9, NEWEST, "z = Sub (x, x) c = Greater (x, z) y = Where (c, x, z)", np.maximum(X, 0)),
    ],
}  # fmt: skip


def cases() -> Iterator[Any]:
    for name, forms in FORMS.items():
        for number, (first, last, body, expected) in enumerate(forms):
            for opset in sorted({first, (first + last) // 2, last}):
                yield pytest.param(opset, body, expected, id=f"{name}-{number}-{opset}")


@pytest.mark.parametrize(("opset", "body", "expected"), list(cases()))
def test_form_of_an_operator_set(opset: int, body: str, expected: Any) -> None:
    text = model_text(opset, "float[2,3,4] x", body)
    got = run(parser.parse_model(text), {"x": X})["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert got.shape == np.shape(expected)


SCALES = "s = Constant <value = float[4] {1, 1, 2, 2}> ()"


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (7, "y = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (x)"),
        (9, f"{SCALES} y = Upsample (x, s)"),
        (10, f"{SCALES} y = Resize (x, s)"),
        (11, (f"{SCALES} e = Constant <value = float[0] {{}}> () y = Resize"
         ' <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, e, s)')),
        (13, (f"{ints('n', 1, 2, 8, 8)} y = Resize"
         ' <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , , n)')),
        (NEWEST, (f"{ints('n', 8, 8)} y = Resize <axes = [2, 3],"
         ' coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , , n)')),
    ],
)  # fmt: skip
def test_doubling_an_image(opset: int, body: str) -> None:
    text = model_text(opset, "float[1,2,4,4] x", body)
    got = run(parser.parse_model(text), {"x": IMAGE})["y"]
    np.testing.assert_array_equal(got, IMAGE.repeat(2, 2).repeat(2, 3))


# -- whole models through ONNX's own converter -----------------------------------------------------


def spread_inputs(net: AsyncNet) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    return {
        s.name: np.asarray(rng.standard_normal(s.spec.shape)).astype(s.spec.dtype)
        for s in net.sources
        if s.kind == "input"
    }


def static_models() -> list[ModelProto]:
    """Small exported models, one in twelve, and our own."""
    found = []
    for data in (*exported()[::12], *[textual()[n] for n in ("convolution", "recurrent", "if")]):
        model = ModelProto()
        model.ParseFromString(data)
        # The converter leaves the slope of PRelu as set 6 had it, which set 7 does not allow.
        if all(node.op_type != "PRelu" for node in model.graph.node):
            found.append(model)
    return found


def test_converted_models_give_the_same() -> None:
    n_compared, versions = 0, set()
    for model in static_models():
        own = next(e.version for e in model.opset_import if e.domain == "")
        try:
            net = load_onnx(model)
        except OnnxImportError:
            continue
        if not isinstance(net, AsyncNet):
            continue
        arrays = spread_inputs(net)
        wanted = run(model, arrays)
        for version in (7, 9, 11, 13, 16, 18, 21, NEWEST):
            if version == own:
                continue
            try:
                converted = version_converter.convert_version(model, version)
            except (RuntimeError, onnx.checker.ValidationError):
                continue  # no adapter in that direction
            got = run(converted, arrays)
            for name, value in wanted.items():
                np.testing.assert_allclose(
                    got[name], value, rtol=1e-5, atol=1e-6, err_msg=f"{own} -> {version}"
                )
            n_compared += 1
            versions.add(version)
    assert n_compared >= 30
    assert {13, 18, NEWEST} <= versions


def test_operator_sets_that_nobody_knows() -> None:
    text = '<ir_version: 8, opset_import: ["" : 18]> agraph (float[2] x) => (y) { y = Relu (x) }'
    model = parser.parse_model(text)
    for version in (0, -1, NEWEST + 1, 2**62):
        model.opset_import[0].version = version
        with pytest.raises(OnnxImportError, match="operator set"):
            load_onnx(model)


def test_operators_are_looked_up_in_their_set() -> None:
    """Gelu came with set 20, Where with set 9."""
    for opset, body, match in (
        (19, "y = Gelu (x)", "Gelu"),
        (7, "c = Where (x, x, x) y = Relu (c)", "Where"),
    ):
        text = model_text(opset, "float[2] x", body)
        with pytest.raises(OnnxImportError, match=match):
            load_onnx(parser.parse_model(text))
