"""Whole nets on CUDA: every mode gives the bits of the serial plan, whatever the device's order."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import asyncnet_gpu as ag
from tests.runs.test_random_nets import nets
from tests.runs.test_values import issue_net

pytestmark = [pytest.mark.gpu, pytest.mark.multigpu]

N_EXAMPLES = int(os.environ.get("ASYNCNET_RANDOM_GPU_NETS", "8"))
MODES = ("serial", "streams", "graph-serial", "graph")


@pytest.mark.parametrize("mode", MODES)
def test_two_device_net(mode: str) -> None:
    net, ready = issue_net()
    x = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    wanted = x[:, :256] + np.maximum(x[:, 256:], 0)
    with net.compile(backend="cuda", mode=mode, slots=2) as exe:
        for factor in (1.0, 2.0, -1.0):
            got = ag.to_numpy(exe.run(x=np.float32(factor) * x)["y"])
            assert got.shape == wanted.shape
            if factor > 0:
                assert np.allclose(got, np.float32(factor) * wanted, rtol=1e-6, atol=1e-6)
        runs = [exe.submit(x=x) for _ in range(5)]
        ready.wait(runs[0], timeout_s=30)
        for run in runs:
            assert np.allclose(ag.to_numpy(run.result(30)["y"]), wanted, rtol=1e-6, atol=1e-6)


def outputs(net: ag.AsyncNet, **options: Any) -> list[dict[str, bytes]]:
    """Run twice with other inputs; states carry over."""
    with net.compile(backend="cuda", **options) as exe:
        results = []
        for seed in range(2):
            rng = np.random.default_rng(seed)
            x, y = (rng.standard_normal((4, 8)).astype(np.float32) for _ in range(2))
            found = exe.run(x=x, y=y)
            results.append({key: ag.to_numpy(value).tobytes() for key, value in found.items()})
        return results


@settings(max_examples=N_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(net=nets(), exact=st.booleans())
def test_all_modes_give_the_same_bits(net: ag.AsyncNet, exact: bool) -> None:
    allocator = "exact" if exact else "cost"
    wanted = outputs(net, mode="serial")
    assert outputs(net, mode="streams", allocator=allocator) == wanted
    assert outputs(net, mode="graph", allocator=allocator) == wanted
