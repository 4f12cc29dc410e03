"""Pretrained models in and out again: onnxruntime gives the same for the file and for its copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from helpers.onnx_models import pretrained

from asyncnet_gpu.cli.models import bound_net, inputs_of, make_inputs, open_net
from asyncnet_gpu.onnx import export_model

#: What the command line would say of each model's inputs.
MODELS: dict[str, tuple[list[str], list[str]]] = {
    "nmp.onnx": ([], []),
    "silero_vad.onnx": (["input=1,576"], ["sr=16000"]),
    "silero_vad_16k_sequence.onnx": ([], []),
    "ch_PP-OCRv4_rec_infer.onnx": (["x=1,3,48,160"], []),
    "model.onnx": ([], []),
}


def run(model: bytes | str, arrays: dict[str, Any]) -> dict[str, Any]:
    import onnxruntime as runtime

    runtime.set_default_logger_severity(4)
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    given = {i.name: arrays[i.name] for i in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_pretrained_model_goes_out_as_it_came(name: str) -> None:
    assert name in pretrained(), "install requirements/models.txt, as `make test` does"
    path = str(pretrained()[name])
    shapes, values = MODELS[name]
    net = open_net(path)
    arrays = make_inputs(inputs_of(net), values, shapes, seed=0)
    model = export_model(bound_net(net, arrays))  # type: ignore[arg-type]
    onnx.checker.check_model(model, full_check=True)
    wanted, got = run(path, arrays), run(model.SerializeToString(), arrays)
    assert got.keys() == wanted.keys()
    for output, value in wanted.items():
        np.testing.assert_allclose(got[output], value, rtol=1e-3, atol=1e-4)
