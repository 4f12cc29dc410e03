"""The interface of `onnx.backend.base`, as tools beside the suite call it."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import asyncnet_gpu.onnx.backend as backend
from asyncnet_gpu.errors import NetError, OnnxImportError


def model():
    def info(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3])

    nodes = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Neg", ["c"], ["d"])]
    graph = helper.make_graph(nodes, "g", [info("a"), info("b")], [info("c"), info("d")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


A, B = np.ones((2, 3), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_prepared_model_runs_by_position_and_by_name():
    rep = backend.prepare(model(), "CPU")
    try:
        for inputs in ([A, B], {"b": B, "a": A}):
            made = rep.run(inputs)
            assert np.array_equal(made.c, A + B)
            assert np.array_equal(made[1], -(A + B))
            assert np.array_equal(made["d"], made[1])
        with pytest.raises(NetError, match="inputs"):
            rep.run([A, B, A])
    finally:
        rep.close()


def test_a_model_runs_once():
    c, d = backend.run_model(model(), [A, B])
    assert np.array_equal(c, -d)


def test_a_node_runs_on_what_it_is_given():
    (made,) = backend.run_node(helper.make_node("Add", ["a", "b"], ["c"]), [A, B])
    assert np.array_equal(made, A + B)
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    (made,) = backend.run_node(node, [B, np.float32(2)])
    assert np.array_equal(made, np.minimum(B, 2))


def test_a_node_of_an_older_set():
    node = helper.make_node("Squeeze", ["x"], ["y"], axes=[0])
    (made,) = backend.run_node(node, [A[:1]], opset_version=11)
    assert made.shape == (3,)
    with pytest.raises(OnnxImportError, match="ImageDecoder"):
        backend.run_node(helper.make_node("ImageDecoder", ["x"], ["y"]), [np.zeros(3, np.uint8)])


def test_a_node_with_sequences_texts_and_narrow_numbers():
    (made,) = backend.run_node(helper.make_node("SequenceInsert", ["s", "x"], ["y"]), [[A], B])
    assert [part.tolist() for part in made] == [A.tolist(), B.tolist()]
    texts = np.array(["a", "b"], object)
    (made,) = backend.run_node(helper.make_node("StringConcat", ["x", "y"], ["z"]), [texts, texts])
    assert made.tolist() == ["aa", "bb"]
    x = A.astype(ml_dtypes.bfloat16)
    (made,) = backend.run_node(helper.make_node("Add", ["x", "x"], ["y"]), [x, x])
    assert made.dtype == x.dtype
    assert np.array_equal(made, 2 * x)


def test_devices():
    assert backend.supports_device("CPU")
    assert backend.supports_device("CPU:0")
    assert not backend.supports_device("TPU")
    assert backend.is_compatible(onnx.ModelProto())
