"""The net of the issue, written as a user writes it, and what it must return."""

from __future__ import annotations

from typing import Any

import numpy as np

import asyncnet_gpu as ag

SHAPE = (64, 256)

SOURCE = """
#ifndef SOFTCUDA_EXTENT
#define SOFTCUDA_EXTENT(n)
#endif
extern "C" __global__ void twice_plus(const float* a SOFTCUDA_EXTENT(16384),
                                      const float* y SOFTCUDA_EXTENT(16384),
                                      float* z SOFTCUDA_EXTENT(16384)) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < 16384) z[i] = 2.0f * a[i] + y[i];
}
"""


def twice_plus(xp: Any, a: Any, y: Any, out: Any) -> None:
    xp.multiply(a, np.float32(2), out=out)
    xp.add(out, y, out=out)


def difference(xp: Any, a: Any, c: Any, out: Any) -> None:
    xp.subtract(a, c, out=out)


FUNCTIONS = {f"{fn.__module__}.{fn.__qualname__}": fn for fn in (twice_plus, difference)}


def weights() -> np.ndarray:
    """A permutation: products with it are exact."""
    return np.eye(512, dtype=np.float32)[np.random.default_rng(0).permutation(512)]


def build(second_device: int = 1) -> tuple[ag.AsyncNet, ag.AsyncNetBarrier]:
    """The snippet, line by line."""
    net = ag.AsyncNet("towers")
    x = net.input("x", (64, 512), "float32")
    w = net.parameter("w", weights())
    h = net.matmul(x, w, name="h")
    a, b = net.split(h, axis=1, parts=2)
    ready = net.barrier(a, b, name="ready")
    with net.device(second_device):
        c = net.relu(b)
    y = net.call(difference, a, c, shape=(64, 256), dtype="float32", name="y")
    z = net.kernel(
        SOURCE, "twice_plus", [a, y], out=(SHAPE, "float32"), grid=64, block=256, cpu=twice_plus,
        name="z", after=[ready],
    )  # fmt: skip
    net.output(y, z)
    return net, ready


def given(seed: int = 0) -> np.ndarray:
    """An input of small integers: every result is exact in float32."""
    return np.random.default_rng(seed).integers(-9, 9, (64, 512)).astype(np.float32)


def wanted(x: np.ndarray) -> dict[str, np.ndarray]:
    h = x @ weights()
    y = h[:, :256] - np.maximum(h[:, 256:], 0)
    return {"y": y, "z": 2 * h[:, :256] + y}
