"""Recurrent layers on CUDA: both ways of taking a step, every feature, few launches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncnet_gpu as ag
from asyncnet_gpu import ops
from asyncnet_gpu.ops import recurrent_kernel
from asyncnet_gpu.ops.base import INTEGERS
from asyncnet_gpu.ops.cell_activations import ACTIVATIONS
from asyncnet_gpu.ops.recurrent import DIRECTIONS, N_ACTIVATIONS, N_GATES
from asyncnet_gpu.specs import spec

pytestmark = pytest.mark.gpu

CELLS = ("lstm", "gru", "rnn")
#: Where weights may never be read again, every batch of more than a tile goes through products.
WAYS = {"fused": 1 << 40, "products": -1}


def arrays_of(
    cell: str, sizes: tuple[int, int, int, int], attrs: dict[str, Any], dtype: str, seed: int = 0
) -> list[np.ndarray[Any, Any]]:
    """Return the inputs of a layer; `sizes` are steps, batch, width and hidden."""
    rng = np.random.default_rng(seed)
    steps, batch, width, hidden = sizes
    d, rows = len(DIRECTIONS[attrs.get("direction", "forward")]), N_GATES[cell] * hidden
    shapes = [(steps, batch, width), (d, rows, width), (d, rows, hidden), (d, 2 * rows),
              *[(d, batch, hidden)] * (2 if cell == "lstm" else 1)]  # fmt: skip
    if attrs.get("has_peephole"):
        shapes.append((d, 3 * hidden))
    made = [(rng.standard_normal(s) / 2).astype(dtype) for s in shapes]
    if attrs.get("has_lengths"):
        kind = rng.choice(sorted(INTEGERS))
        made.append(rng.integers(0, steps + 2, batch).astype(kind))
    return made


def run(
    cell: str, arrays: list[np.ndarray[Any, Any]], attrs: dict[str, Any], *, views: bool = False,
    mode: str = "serial",
) -> list[np.ndarray[Any, Any]]:  # fmt: skip
    net = ag.AsyncNet(cell)
    if views:
        arrays = [np.ascontiguousarray(a.T) for a in arrays]
    blobs = [net.input(f"x{i}", a.shape, a.dtype) for i, a in enumerate(arrays)]
    if views:
        blobs = [net.transpose(b, axes=tuple(range(len(b.shape)))[::-1]) for b in blobs]
    outs = net.add_node(ops.registry()[cell], blobs, attrs)
    net.output(**{f"y{i}": out for i, out in enumerate(outs)})
    with net.compile(backend="cuda", mode=mode) as exe:
        found = exe.run({f"x{i}": a for i, a in enumerate(arrays)})
        return [ag.to_numpy(found[f"y{i}"]) for i in range(len(outs))]


def check(
    cell: str, arrays: list[np.ndarray[Any, Any]], attrs: dict[str, Any], got: list[Any]
) -> None:
    op = ops.registry()[cell]
    dtype = arrays[0].dtype.name
    if attrs.get("has_lengths"):  # sequences end with the input at the latest
        arrays = [*arrays[:-1], np.clip(arrays[-1].astype(np.int64), 0, len(arrays[0]))]
    close = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-11}[dtype]
    for value, wanted in zip(got, op.reference(arrays, {**op.attrs, **attrs}), strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value.astype(float), wanted, rtol=close, atol=close)


@st.composite
def layers(draw: Any) -> tuple[str, str, tuple[int, int, int, int], dict[str, Any]]:
    cell = draw(st.sampled_from(CELLS))
    dtype = draw(st.sampled_from(["float32", "float16", "float64"]))
    flag = st.booleans()
    attrs = {
        "direction": draw(st.sampled_from(list(DIRECTIONS))),
        "clip": draw(st.sampled_from([None, 0.25])),
        "has_lengths": draw(flag),
    }
    if cell == "lstm":
        attrs |= {"has_peephole": draw(flag), "couple_gates": draw(flag)}
    elif cell == "gru":
        attrs["reset_after"] = draw(flag)
    if draw(flag):
        # A jump at its threshold would say nothing of numbers that are rounded before it.
        names = [name for name in ACTIVATIONS if name != "thresholdedrelu"]
        one = st.tuples(st.sampled_from(names), st.sampled_from([None, 0.5]),
                        st.sampled_from([None, 0.25]))  # fmt: skip
        n = N_ACTIVATIONS[cell] * len(DIRECTIONS[attrs["direction"]])
        attrs["activations"] = tuple(draw(st.lists(one, min_size=n, max_size=n)))
    steps, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    batch, hidden = (draw(st.sampled_from(sizes)) for sizes in ([1, 2, 4, 5, 9], [1, 4, 5, 33, 67]))
    return cell, dtype, (steps, batch, width, hidden), attrs


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=50)
@given(layer=layers(), views=st.booleans())
def test_any_layer(way: str, layer: Any, views: bool) -> None:
    cell, dtype, sizes, attrs = layer
    arrays = arrays_of(cell, sizes, attrs, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrent_kernel, "REREAD", WAYS[way])
        check(cell, arrays, attrs, run(cell, arrays, attrs, views=views))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("cell", [*CELLS, "gru_after"])
def test_everything_together(cell: str, dtype: str, way: str) -> None:
    attrs = {"direction": "bidirectional", "clip": 0.75, "has_lengths": True}
    if cell == "lstm":
        attrs["has_peephole"] = True
    elif cell == "gru_after":
        cell, attrs["reset_after"] = "gru", True
    arrays = arrays_of(cell, (4, 9, 3, 37), attrs, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrent_kernel, "REREAD", WAYS[way])
        check(cell, arrays, attrs, run(cell, arrays, attrs))


def test_more_sequences_than_a_grid_has_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent_kernel, "_LARGEST_GRID", 2)
    arrays = arrays_of("lstm", (2, 30, 3, 5), {}, "float32")
    check("lstm", arrays, {}, run("lstm", arrays, {}))


@pytest.mark.parametrize("kind", sorted(INTEGERS))
def test_lengths_of_every_type(kind: str) -> None:
    attrs = {"has_lengths": True, "direction": "reverse"}
    arrays = arrays_of("lstm", (5, 6, 3, 4), attrs, "float32")
    arrays[-1] = np.array([5, 0, 3, 120, 1, 2]).astype(kind)
    if not kind.startswith("u"):
        arrays[-1][1] = -3
    got = run("lstm", arrays, attrs)
    arrays[-1] = np.array([5, 0, 3, 5, 1, 2])
    check("lstm", arrays, attrs, got)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sizes", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)])
def test_nothing_along_an_axis(sizes: tuple[int, int, int, int], way: str) -> None:
    for cell in CELLS:
        arrays = arrays_of(cell, sizes, {}, "float32")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recurrent_kernel, "REREAD", WAYS[way])
            check(cell, arrays, {}, run(cell, arrays, {}))


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations(function: str) -> None:
    attrs = {"activations": ((function, 0.7, 0.3),)}
    arrays = arrays_of("rnn", (2, 3, 4, 5), attrs, "float64")
    check("rnn", arrays, attrs, run("rnn", arrays, attrs))


LAUNCHES = [
    # cell, attributes, launches of a step: fused, and with products
    ("lstm", {"direction": "bidirectional"}, 1, 2),
    ("gru", {"reset_after": True}, 1, 2),
    ("gru", {}, 2, 4),
    ("rnn", {"direction": "reverse"}, 1, 2),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("cell", "attrs", "fused", "products"), LAUNCHES)
def test_launches_of_a_node(
    cell: str, attrs: dict[str, Any], fused: int, products: int, way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(recurrent_kernel, "REREAD", WAYS[way])
    steps = 7
    arrays = arrays_of(cell, (steps, 6, 3, 8), attrs, "float32")
    net = ag.AsyncNet(cell)
    x = net.input("x", arrays[0].shape, "float32")
    weights = [net.parameter(f"w{i}", a) for i, a in enumerate(arrays[1:])]
    net.output(y=getattr(net, cell)(x, *weights, **attrs)[0])
    with net.compile(backend="cuda", mode="serial") as exe:
        (calls,) = exe._engine._free[0].program._bound.calls
        assert len(calls) == 1 + steps * (fused if way == "fused" else products)


def test_the_way_depends_on_the_bytes_read_again() -> None:
    def fused(hidden: int, batch: int, dtype: str = "float32") -> bool:
        return recurrent_kernel.makes_products(spec((1, 4 * hidden, hidden), dtype), batch)

    assert fused(128, 1)
    assert fused(4096, recurrent_kernel.TILE)  # read once
    assert not fused(4096, recurrent_kernel.TILE + 1)
    assert fused(256, 20)
    assert not fused(256, 64)
    assert fused(256, 36, "float16")
    assert not fused(256, 36)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["serial", "streams", "graph"])
def test_inputs_may_move_and_steps_go_out_in_segments(
    mode: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrent_kernel, "REREAD", WAYS[way])
    steps = 40
    arrays = arrays_of("lstm", (steps, 6, 3, 8), {}, "float32")
    net = ag.AsyncNet("moving")
    x, h = (net.input(k, arrays[i].shape, "float32") for k, i in (("x", 0), ("h", 4)))
    w, r, b, c = (net.parameter(f"p{i}", arrays[i]) for i in (1, 2, 3, 5))
    net.output(**dict(zip(("y", "last", "cell"), net.lstm(x, w, r, b, h, c), strict=True)))
    with net.compile(backend="cuda", mode=mode) as exe:
        if mode != "graph":
            program = exe._engine._free[0].program
            n_launches = len(program._bound.calls[0])
            assert n_launches == 1 + steps * (1 if way == "fused" else 2)
            # What reads an input is launched by itself, the rest in segments of at most 64.
            assert len(program._issue) <= 10 + n_launches // 32
        kept = []  # so that the next arrays have other addresses
        for factor in (1, 2, -1):
            given = {"x": arrays[0] * np.float32(factor), "h": arrays[4] * np.float32(factor)}
            kept.append(given)
            out = exe.run(given)
            mine = [given["x"], *arrays[1:4], given["h"], arrays[5]]
            check("lstm", mine, {}, [ag.to_numpy(out[k]) for k in ("y", "last", "cell")])


def test_without_cublas_our_own_product_steps_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncnet_gpu.backends.cuda import blas

    monkeypatch.setattr(recurrent_kernel, "REREAD", WAYS["products"])
    monkeypatch.setattr(blas, "cublas", None)
    attrs = {"direction": "bidirectional", "has_lengths": True}
    arrays = arrays_of("gru", (3, 5, 4, 6), attrs, "float32")
    check("gru", arrays, attrs, run("gru", arrays, attrs))
