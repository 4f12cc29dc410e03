"""Models in which shapes depend on what a run computes run in stages."""

import threading
import time

import numpy as np
import onnxruntime
import pytest
from helpers.staged_models import FLOAT, INT, NOTHING_BOUND, counting, detector, model, node
from onnx import helper

import asyncnet_gpu as ag
from asyncnet_gpu.errors import OnnxImportError
from asyncnet_gpu.onnx import Limits, OnnxExecutable, load_onnx
from asyncnet_gpu.onnx.stages import Stages

BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


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


def test_inputs_too_large_to_be_bound_are_cut_also_after_smaller_ones():
    x = np.random.default_rng(6).standard_normal((300, 8)).astype(np.float32)
    small, large = ({"x": part, "limit": np.array(1.5, "f4")} for part in (x[:2], x))
    exe = compare(counting(), "cpu", small, large, small, limits=Limits(max_bound_bytes=1000))
    assert exe._stages is not None


def test_threads_that_come_first_together_make_one_second_part(monkeypatch):
    x = np.random.default_rng(7).standard_normal((40, 8)).astype(np.float32)
    given = {"x": x, "limit": np.float32(1.5)}
    made, make = [], Stages._part

    def slowly(self, *arguments):
        time.sleep(0.02)
        made.append(make(self, *arguments))
        return made[-1]

    monkeypatch.setattr(Stages, "_part", slowly)
    with load_onnx(counting(), limits=NOTHING_BOUND).compile(backend="cpu") as exe:
        threads = [threading.Thread(target=exe.run, args=(given,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert tuple(made) == exe.stages


def test_a_model_that_is_nothing_but_a_question():
    made = model([node("NonZero", "x", "y")], {"x": (FLOAT, ["n"])}, {"y": (INT, [1, None])})
    x = np.array([0, 1, 2, 0] * 9, np.float32)
    exe = compare(made, "cpu", {"x": x}, {"x": x[1:]})
    assert exe.stages == ()
    with load_onnx(made, limits=NOTHING_BOUND).compile(backend="cpu") as exe:
        assert exe.submit(x=x).result(30)["y"].shape == (1, 18)
