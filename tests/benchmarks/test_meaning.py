"""Workloads compute what they say: against closed forms that share no code with them."""

from __future__ import annotations

import math

import networkx
import numpy as np
import pytest

from benchmarks.nets import bert, black_scholes, cg, hits, img, randwire, vec, wavefront
from benchmarks.nets.plain import conv2d, layer_norm, pool, softmax
from benchmarks.nets.workload import scaled


def test_black_scholes_is_the_closed_form() -> None:
    b = black_scholes
    x = np.linspace(30, 120, 300)
    out = np.empty_like(x)
    b.price(np, x, out)
    spread = b.VOLATILITY * math.sqrt(b.YEARS)

    def below(d: float) -> float:
        return 0.5 * (1 + math.erf(d / math.sqrt(2)))

    for stock, price in zip(x, out, strict=True):
        d1 = (math.log(stock / b.STRIKE) + (b.RATE + b.VOLATILITY**2 / 2) * b.YEARS) / spread
        later = b.STRIKE * math.exp(-b.RATE * b.YEARS)
        assert price == pytest.approx(stock * below(d1) - later * below(d1 - spread), abs=2e-5)


def test_conjugate_gradients_solve_the_ring() -> None:
    workload = cg.build(0.001)
    found = workload.plain(np, workload.arrays())
    b = workload.inputs["b"]
    x = found["solution"]
    residual = b - (4 * x - np.roll(x, 1) - np.roll(x, -1))
    assert np.square(residual).sum() == pytest.approx(float(found["residual"]), rel=1e-6)
    assert np.linalg.norm(residual) < 0.02 * np.linalg.norm(b)


def test_hits_are_shares_of_one() -> None:
    workload = hits.build(0.002)
    found = workload.plain(np, workload.arrays())
    for share in found.values():
        assert share.sum() == pytest.approx(1, rel=1e-4)
        assert (share >= 0).all()


def test_vec_is_a_sum_of_differences() -> None:
    workload = vec.build(0.001)
    x, y = (workload.inputs[k].astype(np.float64) for k in "xy")
    found = float(workload.plain(np, workload.arrays())["total"])
    assert found == pytest.approx(float(((x - y) * (x + y)).sum()), rel=1e-3, abs=0.1)


def test_a_picture_without_edges_is_softened_and_nothing_else() -> None:
    # One bright column: far from it nothing changes, and nowhere is there more than white.
    image = np.full((1, 1, 16, 40), 0.5, np.float32)
    image[..., 20] = 1.0
    picture = img.plain(np, {"image": image})["picture"]
    np.testing.assert_allclose(picture[..., :14], 0.5, atol=1e-4)
    np.testing.assert_allclose(picture[..., 27:], 0.5, atol=1e-4)
    assert picture.max() <= 1.0 + 1e-5


def test_small_world_is_the_model_of_networkx() -> None:
    n, k = 30, 4
    before = randwire.small_world(n, k, 0.0, seed=1)
    ring = networkx.watts_strogatz_graph(n, k, 0.0)
    assert {(a, b) for b, row in enumerate(before) for a in row} == {
        (min(edge), max(edge)) for edge in ring.edges
    }
    rewired = randwire.small_world(n, k, 0.75, seed=1)
    assert rewired == randwire.small_world(n, k, 0.75, seed=1)
    assert rewired != before
    assert all(a < b for b, row in enumerate(rewired) for a in row)


def test_a_cell_is_an_lstm_cell() -> None:
    rng = np.random.default_rng(0)
    total, bias, cell = rng.normal(size=(2, 12)), rng.normal(size=12), rng.normal(size=(2, 3))
    hidden, new_cell = np.empty((2, 3)), np.empty((2, 3))
    wavefront.gates(np, total, bias, cell, (hidden, new_cell))
    i, f, g, o = np.split(total + bias, 4, axis=1)
    expected = cell / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
    np.testing.assert_allclose(new_cell, expected)
    np.testing.assert_allclose(hidden, np.tanh(expected) / (1 + np.exp(-o)))


def test_attention_rows_are_normalised() -> None:
    workload = bert.build(0.1)
    y = workload.plain(np, workload.arrays())["y"]
    a = workload.arrays()
    plain = (y - a["ln2.b"]) / a["ln2.s"]
    np.testing.assert_allclose(plain.mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(plain.std(axis=1), 1, atol=1e-2)


def test_plain_operators_against_loops() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(2, 4, 9, 8)), rng.normal(size=(6, 4, 3, 2))
    found = conv2d(np, x, w, strides=(2, 1), pads=(1, 0, 1, 1))
    wide = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 1)])
    for n, m, i, j in np.ndindex(found.shape):
        cut = wide[n, :, 2 * i : 2 * i + 3, j : j + 2]
        assert found[n, m, i, j] == pytest.approx((cut * w[m]).sum())
    deep = rng.normal(size=(4, 1, 3, 3))
    each = conv2d(np, x, deep, pads=1, groups=4)
    for c in range(4):
        np.testing.assert_allclose(
            each[:, c : c + 1], conv2d(np, x[:, c : c + 1], deep[c : c + 1], pads=1)
        )
    means = pool(np, x, kernel=3, strides=1, pads=1, largest=False)
    assert means[0, 0, 0, 0] == pytest.approx(x[0, 0, :2, :2].mean())
    most = pool(np, x, kernel=2, strides=2, largest=True)
    assert most[1, 2, 1, 3] == x[1, 2, 2:4, 6:8].max()
    assert softmax(np, x, axis=1).sum(axis=1) == pytest.approx(1)
    scale, bias = np.full(8, 2.0), np.full(8, 3.0)
    assert layer_norm(np, x, scale, bias).mean() == pytest.approx(3, abs=1e-6)


def test_sizes_scale_with_their_root() -> None:
    assert scaled(100, 4.0, root=2) == 200
    assert scaled(100, 0.25) == 25
    assert scaled(100, 1e-9) == 1
    assert scaled(1000, 0.001, multiple=20) == 20
