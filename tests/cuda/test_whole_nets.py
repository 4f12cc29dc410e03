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
#: Operators whose last bits a GPU may round otherwise than NumPy does.
ROUNDED = {"matmul", "tanh", "sigmoid"}
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


def outputs(
    net: ag.AsyncNet, backend: str = "cuda", **options: Any
) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Run twice with other inputs; states carry over."""
    with net.compile(backend=backend, **options) as exe:
        if backend == "cuda":
            program = exe._engine._free[0].program
            # Issued step by step instead, a graph mode would give the same bits.
            assert program.captured == str(options["mode"]).startswith("graph")
        results = []
        for seed in range(2):
            rng = np.random.default_rng(seed)
            x, y = (rng.standard_normal((4, 8)).astype(np.float32) for _ in range(2))
            results.append({k: ag.to_numpy(v) for k, v in exe.run(x=x, y=y).items()})
        return results


def same_bits(got: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Compare bit by bit; two NaNs of other bits differ, as they should."""
    for one, other in zip(got, wanted, strict=True):
        assert {k: v.tobytes() for k, v in one.items()} == {
            k: v.tobytes() for k, v in other.items()
        }


@settings(max_examples=N_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(net=nets(), exact=st.booleans())
def test_all_modes_give_the_same_bits(net: ag.AsyncNet, exact: bool) -> None:
    allocator = "exact" if exact else "cost"
    wanted = outputs(net, mode="serial")
    on_cpu = outputs(net, "cpu", mode="serial")
    if ROUNDED.isdisjoint(node["op"] for node in net.to_dict()["nodes"]):
        same_bits(wanted, on_cpu)
    for one, other in zip(wanted, on_cpu, strict=True):
        for key, value in one.items():
            np.testing.assert_allclose(value, other[key], rtol=1e-4, atol=1e-5)
    same_bits(outputs(net, mode="streams", allocator=allocator), wanted)
    same_bits(outputs(net, mode="graph", allocator=allocator), wanted)
