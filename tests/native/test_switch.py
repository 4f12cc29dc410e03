"""Whole nets with the library and without: the same bits, alone and in streams."""

from __future__ import annotations

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.backends.cpu.native.library import SWITCH, library
from tests.native.arrays import Array
from tests.runs.test_random_nets import random_net, several_runs

RNG = np.random.default_rng(5)


def weights(*shape: int) -> Array:
    return (0.2 * RNG.standard_normal(shape)).astype(np.float32)


def towers() -> ag.AsyncNet:
    """Convolutions, norms, pools, rows and products, of an input that is not copied."""
    net = ag.AsyncNet("towers")
    x = net.input("x", (2, 8, 40, 40))
    ends = []
    for size in (1, 3):
        w = net.parameter(f"w{size}", weights(8, 8, size, size))
        y = net.relu(net.conv2d(x, w, pads=size // 2))
        y = net.max_pool(net.add(y, x), kernel=2, strides=2)
        ends.append(net.reduce_mean(y, axes=(2, 3)))
    joined = net.concat(*ends, axis=1)
    z = net.layer_norm(joined, net.parameter("g", weights(16)), net.parameter("b", weights(16)))
    net.output(z=net.softmax(net.matmul(z, net.parameter("m", weights(16, 10)))))
    net.output(y=net.transpose(y, axes=(0, 2, 3, 1)))
    return net


@pytest.mark.parametrize("seed", range(12))
def test_random_nets(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net = random_net(seed, 25)
    assert library() is not None
    listed = [several_runs(net, mode=mode) for mode in ("serial", "streams")]
    monkeypatch.setenv(SWITCH, "0")
    assert library() is None
    assert listed == [several_runs(net, mode=mode) for mode in ("serial", "streams")]


def odd(values: Array) -> Array:
    """Return a copy at an odd address."""
    room = np.zeros(values.nbytes + 1, np.uint8)
    room[1:] = values.reshape(-1).view(np.uint8)
    return room[1:].view(values.dtype).reshape(values.shape)


@pytest.mark.parametrize("place", ["even", "odd", "strided", "reversed"])
def test_inputs_that_are_not_copied(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are pointed at what the caller passes, wherever that lies; two arrays in turn."""
    net = towers()

    def runs(mode: str) -> list[dict[str, bytes]]:
        made = []
        with net.compile(backend="cpu", blas_threads=1, mode=mode) as exe:
            for seed in (0, 1, 0):
                x = np.random.default_rng(seed).standard_normal((2, 8, 40, 40)).astype(np.float32)
                if place == "odd":
                    x = odd(x)
                elif place == "strided":
                    x = np.repeat(x, 2, axis=3)[..., ::2]
                elif place == "reversed":
                    x = x[::-1].copy()[::-1]
                made.append({key: value.tobytes() for key, value in exe.run(x=x).items()})
        return made

    listed = [runs(mode) for mode in ("serial", "streams")]
    monkeypatch.setenv(SWITCH, "0")
    assert listed == [runs(mode) for mode in ("serial", "streams")]
    assert listed[0][0] == listed[0][2] != listed[0][1]
