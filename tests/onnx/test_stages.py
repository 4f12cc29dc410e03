"""Models in which shapes depend on what a run computes run in stages."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import asyncnet_gpu as ag
from asyncnet_gpu.errors import OnnxImportError
from asyncnet_gpu.onnx import Limits, OnnxExecutable, load_onnx

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
#: Every input is too large to be bound by its value.
NOTHING_BOUND = Limits(max_bound_bytes=64)


def model(nodes, inputs, outputs, constants=()):
    def infos(kinds):
        return [helper.make_tensor_value_info(n, *kind) for n, kind in kinds.items()]

    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(kind, inputs, outputs, **attrs):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attrs)


def detector():
    """Boxes and scores from an image; what remains of them, and a mean of the image beside it."""
    return model(
        [node("Relu", "image", "positive"), node("Reshape", "positive rows", "boxes"),
         node("ReduceMean", "boxes", "means", axes=[2], keepdims=0),
         node("Unsqueeze", "means one", "scores"),
         node("NonMaxSuppression", "boxes scores most overlap", "kept"),
         node("Slice", "kept two three one", "places"), node("Squeeze", "places one", "flat"),
         node("Gather", "boxes flat", "found", axis=1), node("Add", "found found", "twice"),
         node("ReduceMean", "positive", "light", keepdims=0)],
        {"image": (FLOAT, [1, 3, 40, 40])},
        {"twice": (FLOAT, [1, None, 4]), "light": (FLOAT, []), "kept": (INT, [None, 3])},
        {"rows": [1, -1, 4], "one": [1], "two": [2], "three": [3], "most": [50],
         "overlap": np.array([0.1], np.float32)},
    )  # fmt: skip


def counting():
    """The sums of the rows in which something is above a limit, at a run's own length."""
    return model(
        [node("Greater", "x limit", "above"), node("Cast", "above", "bits", to=FLOAT),
         node("ReduceMax", "bits", "any", axes=[1], keepdims=0),
         node("NonZero", "any", "rows"), node("Squeeze", "rows zero", "flat"),
         node("Gather", "x flat", "chosen"), node("ReduceSum", "chosen one", "sums", keepdims=0),
         node("Shape", "sums", "count")],
        {"x": (FLOAT, ["n", 8]), "limit": (FLOAT, [])},
        {"sums": (FLOAT, ["m"]), "count": (INT, [1])}, {"zero": [0], "one": [1]},
    )  # fmt: skip


def reshaping():
    """A range as long as the largest element says, in rows of as many as the smallest does."""
    return model(
        [node("Neg", "x", "y"), node("ReduceMax", "y", "top", keepdims=0),
         node("Cast", "top", "end", to=INT), node("Range", "nought end step", "numbers"),
         node("ReduceMin", "y", "least", keepdims=1, axes=[0]),
         node("Cast", "least", "width", to=INT), node("Concat", "rest width", "shape", axis=0),
         node("Reshape", "numbers shape", "table")],
        {"x": (FLOAT, ["n"])}, {"table": (INT, [None, None])},
        {"nought": 0, "step": 1, "rest": [-1]},
    )  # fmt: skip


def compare(made, backend, *runs, limits=NOTHING_BOUND):
    """Run a model as often as there are inputs; every result must be onnxruntime's."""
    session = onnxruntime.InferenceSession(made.SerializeToString())
    with load_onnx(made, limits=limits).compile(backend=backend) as exe:
        for inputs in runs:
            got = exe.run(inputs)
            wanted = session.run(None, inputs)
            for entry, value in zip(session.get_outputs(), wanted, strict=True):
                result = ag.to_numpy(got[entry.name])
                assert result.dtype == value.dtype
                np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-6)
        return exe


def images(*seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        yield {"image": rng.random((1, 3, 40, 40)).astype(np.float32)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_boxes_that_remain(backend):
    compare(detector(), backend, *images(0, 1, 0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_are_chosen(backend):
    rng = np.random.default_rng(3)
    runs = [{"x": rng.standard_normal((n, 8)).astype("f4"), "limit": np.array(limit, "f4")}
            for n, limit in ((30, 1.5), (30, 2.5), (7, 0.0), (30, 9.0))]  # fmt: skip
    compare(counting(), backend, *runs)


def test_results_beside_the_stages():
    made = counting()
    made.graph.output.extend([helper.make_tensor_value_info("one", INT, [1]),
                              helper.make_tensor_value_info("any", FLOAT, None),
                              helper.make_tensor_value_info("flat", INT, None)])  # fmt: skip
    x = np.random.default_rng(4).standard_normal((20, 8)).astype(np.float32)
    compare(made, "cpu", {"x": x, "limit": np.array(1.5, np.float32)})


@pytest.mark.parametrize("backend", BACKENDS)
def test_extents_that_a_run_computes(backend):
    runs = [{"x": -np.array(values, np.float32)} for values in
            ([12, 4, 7] + [5] * 30, [9, 3] + [4] * 30, [12, 6, 8] + [9] * 30)]  # fmt: skip
    compare(reshaping(), backend, *runs)


def test_small_inputs_are_bound_by_value_without_stages():
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    exe = compare(counting(), "cpu", {"x": x, "limit": np.array(7, np.float32)}, limits=Limits())
    assert exe._stages is None


def test_the_second_part_is_planned_for_each_number_of_answers_only():
    rng = np.random.default_rng(5)
    x = rng.permutation(np.repeat([0.0, 1.0], 20)).reshape(40, 1) * np.ones((1, 8))
    made = counting()
    with load_onnx(made, limits=NOTHING_BOUND).compile(backend="cpu") as exe:
        assert isinstance(exe, OnnxExecutable)
        for _ in range(4):
            given = rng.permutation(x).astype(np.float32)
            assert exe.run(x=given, limit=np.float32(0.5))["count"].tolist() == [20]
        assert exe._stages._second.n_plans == 1


def test_what_nobody_can_know_is_refused_by_name():
    made = model([node("Reshape", "x shape", "y")],
                 {"x": (FLOAT, [4]), "shape": (INT, [40])}, {"y": (FLOAT, None)})  # fmt: skip
    with (
        load_onnx(made, limits=NOTHING_BOUND).compile(backend="cpu") as exe,
        pytest.raises(OnnxImportError, match="depend on the data in input 'shape'"),
    ):
        exe.run(x=np.ones(4, np.float32), shape=np.ones(40, np.int64))


def test_submitting_is_refused():
    with load_onnx(detector(), limits=NOTHING_BOUND).compile(backend="cpu") as exe:
        (inputs,) = images(0)
        with pytest.raises(OnnxImportError, match="kept"):
            exe.submit(inputs)
