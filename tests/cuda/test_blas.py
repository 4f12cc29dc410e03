"""Products through cuBLAS: every layout without a copy, equal bits in all modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu

TOLERANCE = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-12}


def operand(net: ag.AsyncNet, name: str, shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    value = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return net.parameter(name, value), value.astype(np.float64)


def products(dtype: str) -> tuple[ag.AsyncNet, dict[str, np.ndarray]]:
    """Products of every layout that a plan can hand to cuBLAS, and their values in float64."""
    net = ag.AsyncNet("products")
    expected = {}

    def add(key: str, blob: Any, value: np.ndarray) -> None:
        net.output(**{key: blob})
        expected[key] = value

    a, va = operand(net, "a", (5, 7), dtype, 1)
    b, vb = operand(net, "b", (7, 4), dtype, 2)
    at, vat = operand(net, "at", (7, 5), dtype, 3)
    bt, vbt = operand(net, "bt", (4, 7), dtype, 4)
    wide, vwide = operand(net, "wide", (9, 20), dtype, 5)
    add("nn", net.matmul(a, b), va @ vb)
    add("tn", net.matmul(net.transpose(at), b), vat.T @ vb)
    add("nt", net.matmul(a, net.transpose(bt)), va @ vbt.T)
    add("tt", net.matmul(net.transpose(at), net.transpose(bt)), vat.T @ vbt.T)
    part = net.slice(wide, starts=[1, 3], ends=[6, 10])
    add("part", net.matmul(part, b), vwide[1:6, 3:10] @ vb)
    odd = net.slice(wide, starts=[0, 0], ends=[5, 14], steps=[1, 2])
    add("every_second", net.matmul(odd, b), vwide[:5, :14:2] @ vb)
    batch, vbatch = operand(net, "batch", (2, 3, 4, 7), dtype, 6)
    other, vother = operand(net, "other", (3, 7, 2), dtype, 7)
    full, vfull = operand(net, "full", (2, 3, 7, 2), dtype, 8)
    add("batch_matrix", net.matmul(batch, b), vbatch @ vb)
    add("matrix_batch", net.matmul(bt, full), vbt @ vfull)
    add("batch_batch", net.matmul(batch, full), vbatch @ vfull)
    add("batch_broadcast", net.matmul(batch, other), vbatch @ vother)
    swapped = net.transpose(batch, axes=[1, 0, 2, 3])
    add("batch_swapped", net.matmul(swapped, b), vbatch.transpose(1, 0, 2, 3) @ vb)
    row, vrow = operand(net, "row", (7,), dtype, 9)
    add("vector_right", net.matmul(a, row), va @ vrow)
    add("vector_left", net.matmul(row, b), vrow @ vb)
    add("dot", net.matmul(row, row), vrow @ vrow)
    bias, vbias = operand(net, "bias", (4,), dtype, 10)
    add(
        "gemm",
        net.gemm(a, bt, bias, alpha=0.5, beta=-2.0, trans_b=True),
        0.5 * va @ vbt.T - 2 * vbias,
    )
    add("gemm_t", net.gemm(at, b, trans_a=True), vat.T @ vb)
    return net, expected


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_products_of_every_layout(dtype: str) -> None:
    outs = {}
    for mode in ("serial", "streams", "graph"):
        net, expected = products(dtype)
        with net.compile(backend="cuda", mode=mode, allocator="exact") as exe:
            outs[mode] = {k: ag.to_numpy(v) for k, v in exe.run().items()}
    for key, value in expected.items():
        np.testing.assert_allclose(
            outs["serial"][key], value, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], err_msg=key
        )
        np.testing.assert_array_equal(outs["streams"][key], outs["serial"][key])
        np.testing.assert_array_equal(outs["graph"][key], outs["serial"][key])


def test_layouts_that_cublas_takes_go_there_without_a_copy() -> None:
    net = products("float32")[0]
    with net.compile(backend="cuda", mode="serial") as exe:
        calls = exe._engine._free[0].program._bound.calls
        by_key = {
            exe.plan.graph.nodes[step.node].writes[0]: repr(calls[i])
            for i, step in enumerate(exe.plan.steps)
        }
        for key in ("nn", "tn", "nt", "tt", "part", "batch_matrix", "batch_batch"):
            call = by_key[exe.plan.graph.outputs[key]]
            assert "gemm" in call, key
        assert "gemm" not in by_key[exe.plan.graph.outputs["every_second"]]


def test_a_product_of_inputs_follows_the_inputs() -> None:
    net = ag.AsyncNet("inputs")
    x, y = net.input("x", (3, 4), "float32"), net.input("y", (4, 2), "float32")
    net.output(z=net.matmul(x, y), t=net.matmul(net.transpose(y), net.transpose(x)))
    rng = np.random.default_rng(0)
    for mode in ("serial", "streams", "graph"):
        with net.compile(backend="cuda", mode=mode) as exe:
            for _ in range(3):
                a = rng.integers(-9, 9, (3, 4)).astype(np.float32)
                b = rng.integers(-9, 9, (4, 2)).astype(np.float32)
                out = exe.run(x=a, y=b)
                np.testing.assert_array_equal(out["z"].get(), a @ b)
                np.testing.assert_array_equal(out["t"].get(), (a @ b).T)


def test_integer_products_take_the_kernel() -> None:
    net = ag.AsyncNet("integers")
    a, b = np.arange(12).reshape(3, 4), np.arange(8).reshape(4, 2)
    net.output(z=net.matmul(net.parameter("a", a), net.parameter("b", b)))
    with net.compile(backend="cuda", mode="graph") as exe:
        np.testing.assert_array_equal(exe.run()["z"].get(), a @ b)
