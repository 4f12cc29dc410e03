"""Running sums and products on CUDA: any shape and layout, one launch or two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncnet_gpu as ag
from asyncnet_gpu import ops
from asyncnet_gpu.ops import cumulative
from asyncnet_gpu.ops.base import NUMBERS

pytestmark = pytest.mark.gpu


def run(
    name: str, x: np.ndarray[Any, Any], attrs: dict[str, Any], *, view: bool = False
) -> tuple[np.ndarray[Any, Any], int]:
    """Return the result and the number of launches."""
    net = ag.AsyncNet(name)
    given_x = np.ascontiguousarray(x.T) if view else x
    blob = net.input("x", given_x.shape, x.dtype)
    if view:
        blob = net.transpose(blob, axes=tuple(range(x.ndim))[::-1])
    net.output(y=getattr(net, name)(blob, **attrs))
    with net.compile(backend="cuda", mode="serial") as exe:
        first, again = (ag.to_numpy(exe.run(x=given_x)["y"]) for _ in range(2))
        assert first.tobytes() == again.tobytes()
        return first, sum(len(calls) for calls in exe._engine._free[0].program._bound.calls)


def check(name: str, x: np.ndarray[Any, Any], attrs: dict[str, Any], got: Any) -> None:
    op = ops.registry()[name]
    (wanted,) = op.reference([x], {**op.attrs, **attrs})
    assert got.dtype == x.dtype
    if x.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted.astype(x.dtype))
        return
    close = {"float16": 2e-3, "float32": 1e-4, "float64": 1e-10}[x.dtype.name]
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(got.astype(float), wanted, rtol=close, atol=close * scale)


def values(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(3)
    if np.dtype(dtype).kind != "f":
        drawn = rng.integers(0 if dtype.startswith("u") else -9, 10, shape)
        # Odd factors never come to 0, however often the product wraps around.
        return (drawn | 1 if name == "cumprod" else drawn).astype(dtype)
    # Products of many numbers stay finite near 1, and sums of signs stay small.
    drawn = rng.uniform(0.97, 1.03, shape) if name == "cumprod" else rng.uniform(-1, 1, shape)
    return drawn.astype(dtype)


@st.composite
def scans(draw: Any) -> tuple[str, np.ndarray[Any, Any], dict[str, Any]]:
    name = draw(st.sampled_from(["cumsum", "cumprod"]))
    dtype = draw(st.sampled_from(sorted(NUMBERS)))
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 31]), min_size=1, max_size=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] = draw(st.sampled_from([0, 1, 7, 32, 33, 65, 257, 1100]))
    attrs = {"axis": axis, "exclusive": draw(st.booleans()), "reverse": draw(st.booleans())}
    return name, values(name, tuple(shape), dtype), attrs


@settings(max_examples=60)
@given(scan=scans(), view=st.booleans(), part=st.sampled_from([8192, 64]))
def test_any_scan(scan: Any, view: bool, part: int) -> None:
    name, x, attrs = scan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cumulative, "_PART", part)  # parts of few elements as well
        got, n_launches = run(name, x, attrs, view=view)
    assert n_launches <= 2
    check(name, x, attrs, got)


SPREADS = [
    # shape, axis, launches
    ((4, 8191), 1, 1),
    ((4, 40000), 1, 2),
    ((600, 40000 // 16), 1, 1),  # rows enough for the device
    ((40, 300), 0, 1),
    ((20000, 3), 0, 2),
    ((5, 6, 7), 1, 1),
]


@pytest.mark.parametrize(("shape", "axis", "launches"), SPREADS)
def test_launches_of_a_node(shape: tuple[int, ...], axis: int, launches: int) -> None:
    x = values("cumsum", shape, "float32")
    got, n_launches = run("cumsum", x, {"axis": axis})
    assert n_launches == launches
    check("cumsum", x, {"axis": axis}, got)


@pytest.mark.parametrize("exclusive", [False, True])
def test_what_is_not_finite_stays_in_its_row(exclusive: bool) -> None:
    x = np.ones((4, 300), np.float32)
    x[1, 100], x[2, 200] = np.nan, np.inf
    got, _ = run("cumsum", x, {"axis": 1, "exclusive": exclusive})
    after = int(exclusive)
    assert np.isfinite(got[[0, 3]]).all()
    assert np.isfinite(got[1, : 100 + after]).all()
    assert np.isnan(got[1, 100 + after :]).all()
    assert np.isfinite(got[2, : 200 + after]).all()
    assert np.isposinf(got[2, 200 + after :]).all()
