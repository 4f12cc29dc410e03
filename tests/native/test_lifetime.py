"""What a call list points at lives as long as the launch made of it, and no longer."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from asyncnet_gpu.backends.cpu.native.calls import CallList, native, written
from asyncnet_gpu.backends.cpu.native.library import library
from asyncnet_gpu.ops.strided import Launches
from tests.native.arrays import Array

N = 4096  # large enough that freed memory is handed out again at once

Make = Callable[[Array], partial[Any]]


def ramp(n: int = N) -> Array:
    return np.arange(n, dtype="f8")


#: By name: a call that writes into an array of N from arrays that nobody else keeps.
CALLS: dict[str, Make] = {
    "array": lambda out: partial(np.add, ramp(), ramp(), out=out),
    "view": lambda out: partial(np.negative, ramp(2 * N)[::-2], out=out),
    "broadcast": lambda out: partial(np.add, np.broadcast_to(np.float64(3), N), ramp(), out=out),
    "number": lambda out: partial(np.multiply, ramp(), 2.5, out=out),
    "NumPy's number": lambda out: partial(np.multiply, np.float64(2.5), ramp(), out=out),
    "array of one": lambda out: partial(np.add, np.full(1, 7.0), ramp(), out=out),
    "filled": lambda out: partial(out.fill, 1.25),
    "filled by an array": lambda out: partial(out.fill, np.full((), 1.25)),
    "copied number": lambda out: partial(np.copyto, out, 4),
    "copied where": lambda out: partial(np.copyto, out, -ramp(), where=ramp() > 9),
    "joined": lambda out: partial(np.concatenate, [ramp(N // 2), ramp(N // 2)], 0, out),
    "sum": lambda out: partial(np.add.reduce, ramp(3 * N).reshape(3, N), axis=0, out=out),
    "maximum": lambda out: partial(np.max, ramp(3 * N).reshape(N, 3), axis=1, out=out),
    "product": lambda out: partial(np.matmul, ramp(64), ramp(64 * N).reshape(64, N), out=out),
    "rows": lambda out: partial(np.add, ramp(64)[:, None], ramp(64), out=out.reshape(64, 64)),
}


def overwrite_what_is_free() -> None:
    gc.collect()
    rooms = [np.full(size, np.nan) for size in (1, 1, 1, 64, N // 2, N, 2 * N, 3 * N) * 4]
    del rooms


def two_calls(name: str, out: Array, other: Array) -> Launches:
    return Launches([CALLS[name](out), partial(np.add, out, 1, out=other)])


@pytest.mark.parametrize("name", list(CALLS))
def test_operands_live_as_long_as_the_launch(name: str) -> None:
    wanted, out = np.zeros((2, N)), np.zeros((2, N))
    two_calls(name, *wanted)()
    assert written(two_calls(name, *out)) is not None
    launch = native(two_calls(name, *out))
    for _ in range(3):
        overwrite_what_is_free()
        out[:] = 0
        launch()
        assert np.array_equal(out, wanted)


@pytest.mark.parametrize("n", [N, 100 * N])
def test_operands_are_let_go_with_the_launch(n: int) -> None:
    """Without the garbage collector, whether a list keeps Python's lock or not."""
    x, out = ramp(n), np.zeros(n)
    seen = weakref.ref(x)
    launch = native(partial(np.negative, x, out=out))
    del x
    launch()
    assert out[2] == -2
    gc.disable()
    try:
        assert seen() is not None
        del launch
        assert seen() is None
    finally:
        gc.enable()


def test_part_of_a_list_keeps_the_words() -> None:
    found = library()
    assert found is not None
    outs = np.zeros((3, N))
    items = [written(CALLS["array"](out)) for out in outs]
    calls = CallList([item for item in items if item is not None], found)
    launch = calls.part(1)
    whole = calls.whole()
    del calls, items
    overwrite_what_is_free()
    launch()
    assert not outs[[0, 2]].any()
    assert np.array_equal(outs[1], 2 * ramp())
    del launch
    overwrite_what_is_free()
    whole()
    assert np.array_equal(outs, np.tile(2 * ramp(), (3, 1)))


def test_inner_loops_outlive_what_asked_for_them() -> None:
    """A dtype made for one call only; the loop keeps addresses of it."""
    out = np.zeros(N, np.dtype("f8", metadata={"of": "out"}))
    launch = native(
        partial(np.add, out, np.ones(N, np.dtype("f8", metadata={"of": "in"})), out=out)
    )
    for i in range(1, 4):
        overwrite_what_is_free()
        launch()
        assert out[-1] == i
