"""Random numbers in ONNX models: drawn anew in every run, the same sequence for equal seeds."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from asyncnet_gpu.errors import OnnxImportError
from asyncnet_gpu.onnx import load_onnx


def load(nodes, inputs, outputs):
    def infos(types):
        return [helper.make_tensor_value_info(n, *t) for n, t in types.items()]

    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs))
    return load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)]))


FLOAT = (TensorProto.FLOAT, None)


def draws(nodes, outputs, n_runs=2, mode="serial", **inputs):
    kinds = {k: (helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()}
    with load(nodes, kinds, outputs).compile(backend="cpu", mode=mode) as exe:
        return [exe.run(inputs) for _ in range(n_runs)]


def uniform(**attrs):
    return helper.make_node("RandomUniform", [], ["u"], shape=[1000], **attrs)


def test_every_run_draws_anew_and_every_executable_the_same():
    first, second = (
        draws([uniform(seed=3.0)], {"u": FLOAT}),
        draws([uniform(seed=3.0)], {"u": FLOAT}),
    )
    assert not np.array_equal(first[0]["u"], first[1]["u"])
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a["u"], b["u"])
    assert not np.array_equal(first[0]["u"], draws([uniform(seed=4.0)], {"u": FLOAT})[0]["u"])


def test_nodes_without_a_seed_draw_differently():
    nodes = [uniform(), helper.make_node("RandomUniform", [], ["v"], shape=[1000])]
    (made,) = draws(nodes, {"u": FLOAT, "v": FLOAT}, 1)
    assert abs(np.corrcoef(made["u"], made["v"])[0, 1]) < 0.1


def test_draws_are_distributed_as_they_say():
    nodes = [
        helper.make_node("RandomUniformLike", ["x"], ["u"], low=-1.0, high=3.0),
        helper.make_node("RandomNormalLike", ["x"], ["n"], mean=2.0, scale=0.5),
        helper.make_node("Multinomial", ["p"], ["m"], sample_size=20_000),
    ]
    p = np.log(np.array([[0.2, 0.5, 0.3], [1e-9, 0.5, 0.5]], np.float32))
    outputs = {"u": FLOAT, "n": FLOAT, "m": (TensorProto.INT32, None)}
    for made in draws(nodes, outputs, x=np.zeros((200, 100), np.float32), p=p):
        u, n, m = made["u"], made["n"], made["m"]
        assert u.min() >= -1
        assert u.max() < 3
        assert abs(u.mean() - 1) < 0.05
        assert abs(n.mean() - 2) < 0.02
        assert abs(n.std() - 0.5) < 0.02
        assert np.allclose(np.bincount(m[0]) / 20_000, [0.2, 0.5, 0.3], atol=0.02)
        assert not (m[1] == 0).any()


def test_dropout_in_training_drops_and_scales():
    node = helper.make_node("Dropout", ["x", "r", "t"], ["y", "kept"], seed=5)
    inputs = {"x": np.ones((100, 100), np.float32), "r": np.array(0.25, np.float32),
              "t": np.array(True)}  # fmt: skip
    outputs = {"y": FLOAT, "kept": (TensorProto.BOOL, None)}
    masks = []
    for made in draws([node], outputs, **inputs):
        assert np.array_equal(made["y"], np.where(made["kept"], np.float32(1 / 0.75), 0))
        assert abs(made["kept"].mean() - 0.75) < 0.03
        masks.append(made["kept"])
    assert not np.array_equal(*masks)


def test_serial_and_streams_draw_the_same():
    nodes = [uniform(seed=1.0), helper.make_node("RandomNormal", [], ["v"], shape=[50])]
    outputs = {"u": FLOAT, "v": FLOAT}
    for a, b in zip(draws(nodes, outputs), draws(nodes, outputs, mode="streams"), strict=True):
        assert np.array_equal(a["u"], b["u"])
        assert np.array_equal(a["v"], b["v"])


def test_a_ratio_that_drops_everything_is_refused():
    node = helper.make_node("Dropout", ["x", "r", "t"], ["y"])
    inputs = {"x": np.ones(3, np.float32), "r": np.array(1.0, np.float32), "t": np.array(True)}
    with pytest.raises(OnnxImportError, match="ratio"):
        draws([node], {"y": FLOAT}, **inputs)
