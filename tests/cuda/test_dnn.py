"""Convolution through cuDNN: the calls, the stream, and our own kernel where it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Put the stand-in in the place of the library."""
    from helpers import fake_cudnn

    from asyncnet_gpu.backends.cuda import dnn

    for record in (fake_cudnn.handles, fake_cudnn.graphs, fake_cudnn.executed):
        record.clear()
    monkeypatch.setattr(dnn, "library", lambda: fake_cudnn)
    yield fake_cudnn
    assert fake_cudnn.handles == [], "a handle was not destroyed"


def convolutions() -> tuple[ag.AsyncNet, dict[str, np.ndarray]]:
    """Every number of axes, groups, bias, padding and dilation; an input straight into one."""
    rng = np.random.default_rng(0)
    net = ag.AsyncNet("convolutions")
    given = {
        "x": rng.standard_normal((2, 4, 9, 8), np.float32),
        "line": rng.standard_normal((1, 3, 12), np.float32),
        "cube": rng.standard_normal((1, 2, 4, 5, 6), np.float32),
    }
    x, line, cube = (net.input(name, a.shape, "float32") for name, a in given.items())

    def weights(name: str, *shape: int) -> Any:
        return net.parameter(name, rng.standard_normal(shape, np.float32))

    first = net.conv2d(x, weights("w", 6, 4, 3, 3), weights("b", 6), pads=(0, 1, 1, 2), strides=2)
    net.output(
        first=first,
        again=net.conv2d(net.relu(first), weights("v", 6, 6, 1, 1)),
        grouped=net.conv2d(x, weights("g", 8, 2, 3, 3), groups=2, pads=1),
        dilated=net.conv(x, weights("d", 2, 4, 3, 3), dilations=2),
        line=net.conv1d(line, weights("l", 4, 3, 3), weights("m", 4), pads=(2, 0)),
        cube=net.conv3d(cube, weights("c", 3, 2, 2, 3, 3), pads=1),
    )
    return net, given


@pytest.mark.parametrize("mode", ["serial", "streams", "graph"])
def test_values_and_streams(cudnn: Any, mode: str) -> None:
    net, given = convolutions()
    with net.compile(backend="cpu", mode="serial") as oracle:
        expected = oracle.run(given)
    with net.compile(backend="cuda", mode=mode) as exe:
        streams = len([s for s in exe.plan.streams if s.kind == "compute"])
        for _ in range(3):  # inputs at new addresses: bound again, not planned again
            fresh = {name: array.copy() for name, array in given.items()}
            for name, value in exe.run(fresh).items():
                np.testing.assert_allclose(
                    ag.to_numpy(value), expected[name], rtol=1e-4, atol=1e-4, err_msg=name
                )
        assert len(cudnn.graphs) == 6
        assert 0 not in cudnn.executed, "launched on the legacy stream"
        if mode == "streams":
            assert len(set(cudnn.executed)) == streams > 1


def test_our_kernel_takes_what_cudnn_refuses(cudnn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn.pygraph, "refuses", True)
    net, given = convolutions()
    with net.compile(backend="cpu", mode="serial") as oracle:
        expected = oracle.run(given)
    with net.compile(backend="cuda", mode="streams") as exe:
        for name, value in exe.run(given).items():
            np.testing.assert_allclose(ag.to_numpy(value), expected[name], rtol=1e-4, atol=1e-4)
    assert cudnn.executed == []


def test_a_device_that_cudnn_refuses(cudnn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("CUDNN_STATUS_NOT_INITIALIZED")

    monkeypatch.setattr(cudnn, "create_handle", refuse)
    net, given = convolutions()
    with net.compile(backend="cuda", mode="streams") as exe:
        assert set(exe.run(given)) == set(exe.plan.graph.outputs)
