"""Copies between devices: peers, and devices that cannot reach one another."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import asyncnet_gpu as ag

pytestmark = pytest.mark.multigpu


def net_over_two() -> ag.AsyncNet:
    net = ag.AsyncNet("two")
    x = net.input("x", (6, 8), "float32")
    near = net.matmul(x, net.transpose(x), name="near")
    with net.device(1):
        far = net.matmul(
            net.slice(x, starts=[0, 2], ends=[6, 6]), np.eye(4, 3, dtype="f4"), name="far"
        )
        both = net.matmul(net.transpose(net.transpose(near)), far, name="both")
    net.output(near, both, back=net.matmul(near, both, name="back"))
    return net


def expected_of(x: np.ndarray) -> dict[str, np.ndarray]:
    near = x @ x.T
    both = near @ (x[:, 2:6] @ np.eye(4, 3, dtype="f4"))
    return {"near": near, "both": both, "back": near @ both}


@pytest.mark.parametrize("mode", ["serial", "streams", "graph", "graph-serial"])
@pytest.mark.parametrize("peers", [True, False])
def test_blobs_cross_devices(mode: str, peers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy

    from asyncnet_gpu.backends.cuda import device as devices

    devices._peers.clear()  # what later tests find there must not outlive access switched off below
    monkeypatch.setattr(devices, "_peers", {})
    if not peers:
        for first, second in ((0, 1), (1, 0)):
            devices._peers[first, second] = False
            not_enabled = contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError)
            with cupy.cuda.Device(first), not_enabled:
                cupy.cuda.runtime.deviceDisablePeerAccess(second)
    with net_over_two().compile(backend="cuda", mode=mode, allocator="exact") as exe:
        if mode.startswith("graph"):
            assert exe._engine._free[0].program.captured
        rng = np.random.default_rng(3)
        for _ in range(3):
            x = rng.integers(-4, 4, (6, 8)).astype(np.float32)
            out = exe.run(x=x)
            for name, value in expected_of(x).items():
                np.testing.assert_array_equal(ag.to_numpy(out[name]), value)
            assert out["both"].device.id == 1
            assert out["back"].device.id == 0
