"""The pretrained models that PyPI packages carry give the numbers of onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.model_oracle import assert_close, load, oracle

import asyncnet_gpu as ag
from benchmarks.nets.models import MODELS, PACKAGED, Model

NAMES = [model.name for model in PACKAGED]
SMALL = {"ocr_det": (1, 3, 64, 96), "ocr_rec": (1, 3, 48, 64), "ocr_cls": (1, 3, 48, 48)}


def small_inputs(model: Model, seed: int) -> dict[str, np.ndarray]:
    if model.name not in SMALL:
        return model.inputs(seed)
    random = np.random.default_rng(seed)
    return {"x": random.standard_normal(SMALL[model.name]).astype(np.float32)}


@pytest.mark.parametrize("name", NAMES)
def test_every_mode_gives_the_numbers_of_onnxruntime(name: str) -> None:
    model = MODELS[name]
    first, second = model.inputs(0), model.inputs(1)
    net = load(model, first)
    with (
        net.compile(backend="cpu", mode="serial") as serial,
        net.compile(backend="cpu", mode="streams") as streams,
        net.compile(backend="cpu", mode="streams", allocator="exact", adversary_seed=3) as hostile,
    ):
        for inputs in (first, second, first):  # nothing of a run is left over in the next
            expected = serial.run(inputs)
            assert_close(model, expected, oracle(model, inputs))
            for exe in (streams, hostile):
                got = exe.run(inputs)
                for key, value in expected.items():
                    np.testing.assert_array_equal(got[key], value, err_msg=key)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("name", ["silero_vad", "silero_vad_op18_ifless"])
def test_a_setting_may_come_with_each_run(name: str, rate: int) -> None:
    # The model chooses one of two networks by the sampling rate: by `If`, or by arithmetic.
    model = MODELS[name]
    n_samples = 32 + 256 if rate == 8000 else 64 + 512
    if name == "silero_vad_op18_ifless" and rate == 8000:
        n_samples = 576  # the longer input is cut
    random = np.random.default_rng(5)
    inputs = {
        "input": (0.1 * random.standard_normal((1, n_samples))).astype(np.float32),
        "state": random.standard_normal((2, 1, 128)).astype(np.float32),
    }
    rated = {**inputs, "sr": np.array(rate, np.int64)}
    expected = oracle(Model(name, model.package, model.file, model.make), rated)
    with ag.load_onnx(model.path).compile(backend="cpu") as exe:
        assert_close(model, exe.run(rated), expected)


@pytest.mark.parametrize("sizes", [[(64, 96), (96, 64), (64, 96)]])
def test_free_dimensions_are_bound_by_each_run(sizes: list[tuple[int, int]]) -> None:
    model = MODELS["ocr_det"]
    random = np.random.default_rng(6)
    with ag.load_onnx(model.path).compile(backend="cpu", mode="serial") as exe:
        for height, width in sizes:
            inputs = {"x": random.standard_normal((1, 3, height, width)).astype(np.float32)}
            assert_close(model, exe.run(inputs), oracle(model, inputs))


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["streams", "graph"])
@pytest.mark.parametrize("name", NAMES)
def test_cuda_gives_the_numbers_of_onnxruntime(name: str, mode: str) -> None:
    model = MODELS[name]
    inputs = small_inputs(model, 0)
    expected = oracle(model, inputs)
    with load(model, inputs).compile(backend="cuda", mode=mode) as exe:
        for _ in range(2):
            assert_close(model, exe.run(inputs), expected)
