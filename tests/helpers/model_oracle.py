"""What onnxruntime makes of a model, and how close we must come to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

import asyncnet_gpu as ag
from benchmarks.nets.models import Model

Inputs = Mapping[str, Any]

RTOL, ATOL = 1e-3, 1e-4


@cache
def _session(path: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def oracle(model: Model, inputs: Inputs) -> dict[str, Any]:
    session = _session(str(model.path))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {**inputs, **model.fixed}), strict=True))


def load(model: Model, inputs: Inputs) -> Any:
    shapes = {name: array.shape for name, array in inputs.items()}
    return ag.load_onnx(model.path, shapes, values=dict(model.fixed))


def assert_close(model: Model, got: Inputs, expected: Inputs) -> None:
    """Values within the tolerance, and the same choice where the last axis is one."""
    assert set(got) == set(expected)
    for name, want in expected.items():
        value = ag.to_numpy(got[name])
        assert value.dtype == want.dtype, name
        np.testing.assert_allclose(value, want, rtol=RTOL, atol=ATOL, err_msg=name)
        if model.chooses:
            np.testing.assert_array_equal(value.argmax(-1), want.argmax(-1), err_msg=name)
