"""Reductions and matrix products as call lists against the plain call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.native.arrays import Call, agrees, as_summed, examples, layouts, nearly, shapes

UFUNCS = (np.add, np.multiply, np.maximum, np.minimum)
FUNCTIONS = (np.sum, np.prod, np.max, np.min, np.amax, np.amin)
PRODUCTS = (np.multiply.reduce, np.prod)
OTHERS = (
    *[f.reduce for f in UFUNCS if f is not np.multiply],
    *[f for f in FUNCTIONS if f is not np.prod],
)
DTYPES = ("f4", "f8", "f2", "i4", "i8", "u1")


@st.composite
def reductions(
    draw: st.DrawFn, functions: Sequence[Any], shape: tuple[int, ...]
) -> tuple[Any, dict[str, Any], list[int]]:
    """Draw a function, its keywords, and the shape of its output."""
    function = draw(st.sampled_from(functions))
    kind = draw(st.sampled_from(["none", "one", "several", "default"]))
    given_: dict[str, Any] = {}
    if kind == "none" or not shape:
        reduced, given_["axis"] = set(range(len(shape))), None
    elif kind == "default":
        whole = function in FUNCTIONS
        reduced = set(range(len(shape))) if whole else {0}
    else:
        most = 1 if kind == "one" else len(shape)
        reduced = draw(st.sets(st.sampled_from(range(len(shape))), min_size=1, max_size=most))
        listed = [a - len(shape) if draw(st.booleans()) else a for a in reduced]
        given_["axis"] = listed[0] if kind == "one" else tuple(listed)
    keepdims = draw(st.booleans())
    if keepdims or draw(st.booleans()):
        given_["keepdims"] = keepdims
    kept = [1 if a in reduced else n for a, n in enumerate(shape) if keepdims or a not in reduced]
    return function, given_, kept


@examples(250)
@given(st.data())
def test_reductions_of_all_layouts(data: st.DataObject) -> None:
    if data.draw(st.integers(0, 3)):
        shape = data.draw(shapes(most_axes=4, largest=9, empty=False))
        function, keywords, kept = data.draw(reductions(OTHERS, shape))
        dtype = data.draw(st.sampled_from(DTYPES))
    else:  # too few numbers to overflow in one order and not in another
        shape = data.draw(shapes(most_axes=3, largest=3, empty=False))
        function, keywords, kept = data.draw(reductions(PRODUCTS, shape))
        dtype = data.draw(st.sampled_from(("f4", "f8", "i4", "u1")))
    if data.draw(st.booleans()):
        keywords["dtype"] = dtype
        if function in (np.max, np.min, np.amax, np.amin):
            del keywords["dtype"]
    source = data.draw(layouts(shape, dtype, spread=False))
    target = data.draw(layouts(tuple(kept), dtype, written=True))

    def make() -> Call:
        (memory, out), (read, x) = target.make(), source.make()
        return partial(function, x, out=out, **keywords), [memory, read]

    assert agrees(make, nearly)


@examples(60)
@given(st.data())
def test_sums_of_contiguous_arrays_have_the_bits_of_numpy(data: st.DataObject) -> None:
    """Numbers are added in the same order, by pairs where NumPy does so."""
    shape = data.draw(
        st.tuples(*[st.sampled_from([1, 2, 3, 17, 130])] * data.draw(st.integers(1, 3)))
    )
    first = data.draw(st.integers(0, len(shape)))
    last = data.draw(st.integers(first, len(shape)))
    axes = tuple(range(first, last)) or tuple(range(len(shape)))
    dtype = data.draw(st.sampled_from(("f4", "f8", "f2")))
    kept = tuple(n for a, n in enumerate(shape) if a not in axes)

    def make() -> Call:
        x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
        out = np.zeros(kept, dtype)
        return partial(np.add.reduce, x, axis=axes, dtype=out.dtype, out=out), [out.reshape(-1)]

    assert agrees(make, as_summed)


@pytest.mark.parametrize("axes", [(), 0, 1, (0, 1)])
@pytest.mark.parametrize("place", ["itself", "first", "elsewhere"])
@pytest.mark.parametrize("function", UFUNCS)
def test_reductions_into_their_input(function: np.ufunc, axes: Any, place: str) -> None:
    def make() -> Call:
        memory = np.arange(1.0, 30)
        x = memory[4:8].reshape(4, 1) if place == "itself" else memory[4:16].reshape(4, 3)
        wanted = function.reduce(x, axis=axes, keepdims=True).shape
        first = {"itself": 4, "first": 4, "elsewhere": 2}[place]
        out = memory[first : first + int(np.prod(wanted))].reshape(wanted)
        return partial(function.reduce, x, axis=axes, keepdims=True, out=out), [memory]

    agrees(make)


def test_zeros_keep_the_sign_that_numpy_gives_them() -> None:
    for shape, axis in (((5,), 0), ((5, 3), 0), ((5, 3), 1), ((1, 3), 0)):

        def make(shape: tuple[int, ...] = shape, axis: int = axis) -> Call:
            x = np.full(shape, -0.0, "f4")
            out = np.ones(np.add.reduce(x, axis=axis).shape, "f4")
            return partial(np.add.reduce, x, axis=axis, out=out), [out.reshape(-1)]

        assert agrees(make)


def bad_reductions() -> dict[str, partial[object]]:
    """Return what NumPy refuses, or takes in a way of its own."""
    x, out, square = np.ones((2, 3), "f4"), np.zeros(2, "f4"), np.zeros((2, 2), "f4")
    add = np.add.reduce
    return {
        "no output": partial(add, x, axis=1),
        "axis by position": partial(add, x, 1, None, out),
        "no such axis": partial(add, x, axis=2, out=out),
        "an axis twice": partial(add, x, axis=(1, -1), out=out),
        "axes in a list": partial(np.sum, x, axis=[1], out=out),
        "axis of a number": partial(add, np.ones((), "f4"), axis=0, out=np.zeros((), "f4")),
        "output of another shape": partial(add, x, axis=1, out=np.zeros(3, "f4")),
        "output of one axis more": partial(add, x, axis=1, out=np.zeros((2, 1), "f4")),
        "output of one axis less": partial(add, x, axis=1, keepdims=True, out=out),
        "another dtype": partial(add, x, axis=1, out=np.zeros(2, "f8")),
        "added up in another": partial(add, x, axis=1, dtype="f8", out=out),
        "initial": partial(add, x, axis=1, out=out, initial=2),
        "where": partial(add, x, axis=1, out=out, where=x > 2),
        "nothing to reduce": partial(np.maximum.reduce, x[:, :0], axis=1, out=out),
        "a list": partial(add, [[1.0, 2], [3, 4]], axis=1, out=out),
        "another function": partial(np.subtract.reduce, x, axis=1, out=out),
        "another method": partial(np.add.accumulate, x, axis=1, out=np.zeros((2, 3), "f4")),
        "axes of a product": partial(np.matmul, x, x.T, out=square, axes=[(0, 1)] * 3),
        "terms of another number": partial(np.matmul, x, x, out=np.zeros((2, 3), "f4")),
        "product of another shape": partial(np.matmul, x, x.T, out=np.zeros((2, 3), "f4")),
        "product of another batch": partial(
            np.matmul, np.ones((3, 2, 3), "f4"), x.T, out=np.zeros((4, 2, 2), "f4")
        ),
        "product of a number": partial(np.matmul, np.ones((), "f4"), x, out=out),
        "product of vectors": partial(np.vecdot, x, x, out=out),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(bad_reductions()))
def test_refused(name: str) -> None:
    assert not agrees(lambda: (bad_reductions()[name], []))


@examples(200)
@given(st.data())
def test_products_of_all_layouts(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(("f4", "f8", "f2", "i4", "u1")))
    batch = data.draw(shapes(most_axes=3, largest=3))
    extent = st.sampled_from([0, 1, 1, 2, 3, 5, 17])
    rows, terms, columns = data.draw(extent), data.draw(extent), data.draw(extent)
    sides = []
    for core in ((rows, terms), (terms, columns)):
        own = batch[data.draw(st.integers(0, len(batch))) :]
        own = tuple(n if data.draw(st.booleans()) else 1 for n in own)
        sides.append((*own, *core))
    made: tuple[int, ...] = (*batch, rows, columns)
    vectors = data.draw(st.sampled_from(["", "left", "right", "both"]))
    if vectors in ("left", "both"):
        sides[0] = (terms,)
        made = (*batch, columns)
    if vectors in ("right", "both"):
        sides[1] = (terms,)
        made = made[:-1]
    ins = [data.draw(layouts(side, dtype, spread=False)) for side in sides]
    out = data.draw(layouts(made, dtype, written=True))

    def make() -> Call:
        (memory, target), (left, a), (right, b) = [x.make() for x in (out, *ins)]
        return partial(np.matmul, a, b, out=target), [memory, left, right]

    assert agrees(make, nearly)


@pytest.mark.parametrize("shape", [(3, 3), (40, 40)])
@pytest.mark.parametrize("place", ["a", "b", "both", "shifted", "transposed"])
def test_products_into_their_input(shape: tuple[int, int], place: str) -> None:
    n = shape[0]

    def make() -> Call:
        memory = np.random.default_rng(0).standard_normal(3 * n * n)
        a, b = memory[: n * n].reshape(shape), memory[n * n : 2 * n * n].reshape(shape)
        targets = {"a": a, "b": b, "both": a, "shifted": memory[n : n + n * n].reshape(shape)}
        out = targets.get(place, a.T)
        return partial(np.matmul, a, a if place == "both" else b, out=out), [memory]

    agrees(make)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_products_have_the_bits_of_numpy(dtype: str) -> None:
    for left, right, shape in (
        ((64, 33), (33, 20), (64, 20)),
        ((5, 64, 33), (33, 20), (5, 64, 20)),
        ((33,), (33, 20), (20,)),
        ((64, 33), (33,), (64,)),
        ((33,), (33,), ()),
    ):

        def make(left: Any = left, right: Any = right, shape: Any = shape) -> Call:
            rng = np.random.default_rng(0)
            a, b = rng.standard_normal(left).astype(dtype), rng.standard_normal(right).astype(dtype)
            out = np.zeros(shape, dtype)
            return partial(np.matmul, a, b, out=out), [out.reshape(-1)]

        assert agrees(make)


def test_a_matrix_times_its_transpose() -> None:
    """NumPy has a routine of its own for it, by the addresses."""

    def make() -> Call:
        a = np.random.default_rng(0).standard_normal((40, 30))
        out = np.zeros((40, 40))
        return partial(np.matmul, a, a.T, out=out), [out.reshape(-1)]

    assert agrees(make)
