"""Every operator, every case, through the whole library, against its slow float64 reference."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu import ops
from asyncnet_gpu.ops.base import Op, OpCase
from asyncnet_gpu.specs import TensorSpec

CASES = [
    pytest.param(op, case, id=f"{op.name}-{case.name}")
    for op in ops.registry().values()
    for case in op.cases
]


def fill(spec: TensorSpec, case: OpCase, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return the seeded input for a spec."""
    if spec.dtype.kind == "b":
        return rng.random(spec.shape) < 0.5
    if case.low is not None and case.high is not None:
        drawn = rng.uniform(case.low, case.high, spec.shape)
    elif spec.dtype.kind == "f":
        drawn = rng.standard_normal(spec.shape)
    else:
        drawn = rng.integers(0 if spec.dtype.kind == "u" else -4, 5, spec.shape).astype(float)
    return np.asarray(drawn).astype(spec.dtype)


def inputs_of(op: Op, case: OpCase) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(zlib.crc32(f"{op.name}-{case.name}".encode()))
    return [fill(i, case, rng) if isinstance(i, TensorSpec) else np.asarray(i) for i in case.inputs]


def run_case(
    op: Op, case: OpCase, arrays: list[np.ndarray[Any, Any]], mode: str, backend: str = "cpu"
) -> list[Any]:
    """Build the one-node net and run it twice: a launch must be repeatable."""
    net = ag.AsyncNet(op.name)
    blobs = [
        (net.parameter if i in op.mutates else net.input)(
            f"in{i}", *((a,) if i in op.mutates else (a.shape, a.dtype))
        )
        for i, a in enumerate(arrays)
    ]
    outs = net.add_node(op, blobs, case.attrs)
    net.output(**{f"out{i}": out for i, out in enumerate(outs)})
    given = {f"in{i}": a for i, a in enumerate(arrays) if i not in op.mutates}
    with net.compile(backend=backend, mode=mode) as exe:
        first = {key: ag.to_numpy(value) for key, value in exe.run(given).items()}
        if not op.mutates:
            again = {key: ag.to_numpy(value) for key, value in exe.run(given).items()}
            for key, value in first.items():
                assert np.array_equal(value, again[key], equal_nan=value.dtype.kind == "f")
        return [first[f"out{i}"] for i in range(len(outs))]


def check(op: Op, case: OpCase, got: list[Any], arrays: list[np.ndarray[Any, Any]]) -> None:
    """Compare with the reference: shape, and values within the case's tolerance."""
    wanted = op.reference([a.copy() for a in arrays], op.attrs | dict(case.attrs))
    assert len(wanted) == len(got)
    for value, reference in zip(got, wanted, strict=True):
        assert value.shape == np.shape(reference)
        if value.dtype.kind == "f":
            np.testing.assert_allclose(
                value.astype(np.float64), np.asarray(reference, np.float64),
                rtol=case.rtol, atol=case.atol,
            )  # fmt: skip
        else:
            assert np.array_equal(value, np.asarray(reference).astype(value.dtype))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some cases divide by zero on purpose
@pytest.mark.parametrize(("op", "case"), CASES)
def test_case_on_the_cpu(op: Op, case: OpCase) -> None:
    if "cpu" not in case.backends:
        pytest.fail("a case without the CPU needs a declared xfail")
    arrays = inputs_of(op, case)
    check(op, case, run_case(op, case, arrays, "serial"), arrays)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("op", "case"), [p for p in CASES if "cuda" in p.values[1].backends and not p.values[0].mutates]
)
def test_case_on_cuda(op: Op, case: OpCase) -> None:
    arrays = inputs_of(op, case)
    check(op, case, run_case(op, case, arrays, "serial", "cuda"), arrays)


def test_every_operator_has_cases_or_is_the_users_own() -> None:
    without = {op.name for op in ops.registry().values() if not op.cases}
    assert without == {"async_barrier", "async_net_barrier", "call", "kernel"}
    assert len(CASES) > 100


@pytest.mark.parametrize("fault", ["last", "nan", "untouched"])
def test_a_planted_fault_is_caught(fault: str) -> None:
    """The check above must be able to fail."""
    op = ops.registry()["add"]
    case = op.cases[0]
    arrays = inputs_of(op, case)
    got = run_case(op, case, arrays, "serial")
    if fault == "last":
        got[0].flat[-1] += 1
    elif fault == "nan":
        got[0].flat[0] = np.nan
    else:
        got[0][...] = 0
    with pytest.raises(AssertionError):
        check(op, case, got, arrays)
