"""Numbers of 16, 8, 4 and 2 bits that no array of NumPy has: codes, conversions, whole models."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from asyncnet_gpu import ops
from asyncnet_gpu.errors import NetError, OnnxImportError
from asyncnet_gpu.onnx import StructuredNet, load_onnx
from asyncnet_gpu.onnx.narrow import NARROW, array_from_codes, codes_from_array, codes_from_bytes

FLOATS = [t for t, n in NARROW.items() if not n.is_integer and n.name != "float8_e8m0fnu"]


def model(nodes, inputs, outputs, initializers=(), opset=23):
    def infos(types):
        return [helper.make_tensor_value_info(n, t, s) for n, (t, s) in types.items()]

    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def run(made, **inputs):
    with load_onnx(made).compile(backend="cpu", mode="serial") as exe:
        return exe.run(inputs)


def apply(name, array, out, **attrs):
    op = ops.registry()[name]
    op.bind(np, [array], [out], {**op.attrs, **attrs}, [])()
    return out


@pytest.mark.parametrize("element_type", FLOATS)
def test_rounding_is_that_of_ml_dtypes(element_type):
    narrow = NARROW[element_type]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(20_000) * 10.0 ** rng.integers(-9, 7, 20_000)
    x = np.append(x, [0.0, -0.0, np.inf, -np.inf]).astype(np.float32)
    wanted = x.astype(getattr(ml_dtypes, narrow.name))
    got = apply("encode_float", x, np.empty(x.shape, narrow.codes), format=narrow.name,
                saturate=narrow.name == "float4_e2m1fn")  # fmt: skip
    same = got == codes_from_array(wanted, element_type)
    assert (same | np.isnan(wanted.astype(np.float32))).all()


@pytest.mark.parametrize("element_type", FLOATS)
def test_every_code_means_what_ml_dtypes_says(element_type):
    narrow = NARROW[element_type]
    codes = np.arange(1 << narrow.bits).astype(narrow.codes)
    got = apply("decode_float", codes, np.empty(codes.shape, np.float32), format=narrow.name)
    assert np.array_equal(got, array_from_codes(codes, element_type).astype("f4"), equal_nan=True)


@pytest.mark.parametrize("element_type", NARROW)
def test_packed_bytes_are_read_as_onnx_writes_them(element_type):
    narrow = NARROW[element_type]
    codes = np.arange(7) if narrow.bits > 2 else np.arange(7) % 2
    array = array_from_codes(codes.astype(narrow.codes), element_type)
    tensor = onnx.numpy_helper.from_array(array)
    assert tensor.data_type == element_type
    assert np.array_equal(codes_from_bytes(tensor.raw_data, element_type, 7), codes)


def test_sums_of_bfloat16_are_rounded_once():
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((5, 40)).astype(ml_dtypes.bfloat16) for _ in range(2))
    kind = (TensorProto.BFLOAT16, [5, 40])
    made = model([helper.make_node("Add", ["a", "b"], ["y"])], {"a": kind, "b": kind}, {"y": kind})
    assert isinstance(load_onnx(made), StructuredNet)
    y = run(made, a=a, b=b)["y"]
    assert y.dtype == a.dtype
    assert np.array_equal(y, (a.astype(np.float32) + b.astype(np.float32)).astype(a.dtype))


def test_weights_of_4_bits_with_scales():
    weights = np.array([[-8, 7, 3], [0, -1, 5]], ml_dtypes.int4)
    made = model(
        [helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0),
         helper.make_node("MatMul", ["x", "d"], ["y"])],
        {"x": (TensorProto.FLOAT, [4, 2])}, {"y": (TensorProto.FLOAT, [4, 3])},
        [onnx.numpy_helper.from_array(weights, "w"),
         onnx.numpy_helper.from_array(np.array([0.5, 2], np.float32), "s")],
    )  # fmt: skip
    x = np.random.default_rng(2).standard_normal((4, 2)).astype(np.float32)
    wanted = x @ (weights.astype(np.float32) * np.array([[0.5], [2]], np.float32))
    np.testing.assert_allclose(run(made, x=x)["y"], wanted, rtol=1e-6)


def test_short_data_are_refused():
    tensor = onnx.numpy_helper.from_array(np.zeros(9, ml_dtypes.uint4), "w")
    tensor.raw_data = tensor.raw_data[:-1]
    made = model([helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)],
                 {}, {"y": (TensorProto.FLOAT, [9])}, [tensor])  # fmt: skip
    with pytest.raises(OnnxImportError, match=r"initializer 'w'\] data: expected 5 bytes"):
        load_onnx(made)


def test_an_array_of_another_type_is_refused():
    kind = (TensorProto.FLOAT8E5M2, [3])
    made = model([helper.make_node("Identity", ["x"], ["y"])], {"x": kind}, {"y": kind})
    with pytest.raises(NetError, match=r"ml_dtypes\.float8_e5m2"):
        run(made, x=np.zeros(3, np.float32))
