"""Copies, fills and joins as call lists against the plain call."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet_gpu.backends.cpu.native.encode import Calls, encode
from asyncnet_gpu.ops.strided import launch_all
from tests.native.arrays import Array, Call, agrees, examples, layouts, numbers, shapes

DTYPES = ("f4", "f8", "f2", "i8", "u1", "?")


@examples(150)
@given(st.data())
def test_copies_of_all_layouts(data: st.DataObject) -> None:
    shape = data.draw(shapes(largest=9))
    dtype = data.draw(st.sampled_from(DTYPES))
    target = data.draw(layouts(shape, dtype, written=True))
    source = data.draw(layouts(shape, dtype))
    where = data.draw(layouts(shape, "?")) if data.draw(st.booleans()) else None

    def make() -> Call:
        (memory, out), (read, x) = target.make(), source.make()
        if where is None:
            return partial(np.copyto, out, x), [memory, read]
        asked, mask = where.make()
        return partial(np.copyto, out, x, where=mask), [memory, read, asked]

    assert agrees(make)


@examples(60)
@given(st.data())
def test_copies_within_one_memory(data: st.DataObject) -> None:
    """Turned round, transposed, shifted: NumPy copies as if through another memory."""
    n, m = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    first, other = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    turned = data.draw(st.sampled_from(["", "rows", "columns", "transposed"]))
    masked = data.draw(st.booleans())

    def make() -> Call:
        memory = numbers(np.random.default_rng(0), 60, np.dtype("?" if masked else "i4"))
        out = memory[first : first + n * m].reshape(n, m)
        x = memory[other : other + n * m].reshape(n, m)
        views = {"": x, "rows": x[::-1], "columns": x[:, ::-1]}
        x = views.get(turned, memory[other : other + n * m].reshape(m, n).T)
        if not masked:
            return partial(np.copyto, out, x), [memory]
        return partial(np.copyto, out, np.ones((), bool), where=x), [memory]

    agrees(make)


def test_nothing_is_copied_onto_itself() -> None:
    x = np.arange(6.0).reshape(2, 3)
    for view in (x, x[:, ::-1], x.T):
        calls = Calls()
        assert encode(partial(np.copyto, view, view[:]), calls)
        assert encode(partial(np.copyto, view, view[:], where=np.ones(view.shape, bool)), calls)
        assert not calls.words


@examples(120)
@given(st.data())
def test_numbers_are_copied_as_numpy_does_it(data: st.DataObject) -> None:
    number = data.draw(
        st.one_of(
            st.integers(-300, 300), st.floats(-1e30, 1e30), st.booleans(),
            st.sampled_from(
                [np.float32(2.5), np.int64(70000), np.float64(np.nan), np.True_, [1, 2, 3], 2j]
            ),
        )
    )  # fmt: skip
    layout = data.draw(layouts((2, 3), data.draw(st.sampled_from(DTYPES)), written=True))
    filled = data.draw(st.booleans())

    def make() -> Call:
        memory, out = layout.make()
        return partial(out.fill, number) if filled else partial(np.copyto, out, number), [memory]

    with np.errstate(all="ignore"):
        try:
            make()[0]()
        except (TypeError, ValueError, OverflowError):
            assert not agrees(make)
            return
    assert agrees(make) or isinstance(number, list | complex)


@pytest.mark.parametrize("kind", ["copyto", "fill", "add"])
def test_numbers_in_arrays_are_read_when_the_list_runs(kind: str) -> None:
    def make() -> Call:
        number, out = np.full(1, 3, "f4"), np.zeros((3, 4), "f4")
        value = number.reshape(())
        calls = {
            "copyto": partial(np.copyto, out, value),
            "fill": partial(out.fill, value),
            "add": partial(np.add, np.ones((3, 1), "f4"), value, out=out),
        }
        double = partial(np.multiply, number, np.float32(2), out=number)
        return launch_all([calls[kind], double]), [out.reshape(-1), number]

    assert agrees(make, runs=4)


@examples(100)
@given(st.data())
def test_joins(data: st.DataObject) -> None:
    shape = list(data.draw(shapes(most_axes=4, largest=4).filter(len)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    extents = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    dtype = data.draw(st.sampled_from(DTYPES))
    parts = []
    for extent in extents:
        shape[axis] = extent
        parts.append(data.draw(layouts(tuple(shape), dtype, spread=False)))
    shape[axis] = sum(extents)
    target = data.draw(layouts(tuple(shape), dtype, written=True))
    if data.draw(st.booleans()):
        axis -= len(shape)
    named = data.draw(st.booleans())

    def make() -> Call:
        memory, out = target.make()
        made = [part.make() for part in parts]
        arrays = [view for _, view in made]
        kept = [memory, *[own for own, _ in made]]
        if named:
            return partial(np.concatenate, arrays, axis=axis, out=out), kept
        return partial(np.concatenate, arrays, axis, out), kept

    assert agrees(make)


def test_parts_that_lie_in_the_output_are_joined_in_order() -> None:
    def make(first: slice, second: slice) -> Call:
        memory = np.arange(6.0)
        return partial(np.concatenate, [memory[first], memory[second]], 0, memory), [memory]

    for cut in range(7):
        agrees(lambda cut=cut: make(slice(cut, None), slice(None, cut)))
        agrees(lambda cut=cut: make(slice(None, cut), slice(cut, None)))


def bad_calls() -> dict[str, partial[object]]:
    """Return what NumPy refuses, or takes in a way of its own."""
    x, out, larger = np.ones((2, 3), "f4"), np.zeros((2, 3), "f4"), np.zeros((4, 3), "f4")
    read_only = np.zeros((2, 3), "f4")
    read_only.flags.writeable = False
    mask = np.ones((2, 3), bool)
    return {
        "too long": partial(np.copyto, out, np.ones((2, 4), "f4")),
        "too short": partial(np.copyto, out, np.ones(2, "f4")),
        "mask of another shape": partial(np.copyto, out, x, where=np.ones((3, 2), bool)),
        "mask of another dtype": partial(np.copyto, out, x, where=np.ones((2, 3), "u1")),
        "mask by position": partial(np.copyto, out, x, "same_kind", ~mask),
        "converted": partial(np.copyto, out, x.astype("f8"), "same_kind"),
        "read-only": partial(np.copyto, read_only, x),
        "filled read-only": partial(read_only.fill, 1),
        "filled by an array": partial(out.fill, np.ones(3, "f4")),
        "filled by another dtype": partial(out.fill, np.ones((), "f8")),
        "target is a list": partial(np.copyto, [1.0], x),
        "a list": partial(np.copyto, out, [7]),
        "joined flat": partial(np.concatenate, [x, x], axis=None, out=np.zeros(12, "f4")),
        "joined lists": partial(np.concatenate, [x, [[1, 2, 3]]], 0, np.zeros((3, 3), "f4")),
        "joined too short": partial(np.concatenate, [x], 0, np.zeros((3, 3), "f4")),
        "joined too long": partial(np.concatenate, [x, x], 0, np.zeros((3, 3), "f4")),
        "joined misfits": partial(np.concatenate, [x, x[:, :1]], 0, larger),
        "joined axes": partial(np.concatenate, [x[0]], 0, out[:1]),
        "joined nothing": partial(np.concatenate, [], 0, out),
        "joined where": partial(np.concatenate, [x], 2, out),
        "joined converting": partial(np.concatenate, [x, x.astype("f8")], 0, larger),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(bad_calls()))
def test_refused(name: str) -> None:
    assert not agrees(lambda: (bad_calls()[name], []))


def test_16_bytes_are_not_carried() -> None:
    def make() -> Call:
        x, out = np.arange(3) * 1j, np.zeros(3, complex)
        return partial(np.copyto, out, x), [out]

    assert not agrees(make)


def test_elements_of_several_numbers_are_not_carried() -> None:
    """They need not lie at multiples of their size."""
    pairs: Array = np.zeros(3, "i4,i4")
    assert not agrees(lambda: (partial(np.copyto, pairs.copy(), pairs), []))
