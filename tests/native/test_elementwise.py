"""Ufuncs as call lists against the plain call: all dtypes, layouts and ways to broadcast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnet_gpu.backends.cpu.native.calls import native, written
from tests.native.arrays import (
    FLOATS,
    INTEGERS,
    Array,
    Call,
    Layout,
    agrees,
    alike,
    close,
    examples,
    layouts,
    numbers,
    shapes,
)

ANY = (*FLOATS, *INTEGERS)

#: Function, dtypes of its inputs (all the same), dtype of its output or "" for that of the inputs.
FUNCTIONS = [
    *[(f, ANY, "") for f in (np.add, np.subtract, np.multiply, np.maximum, np.minimum, np.fmax)],
    *[(f, (*ANY, "?"), "?") for f in (np.less, np.equal, np.greater_equal, np.not_equal)],
    *[(f, (*ANY, "?"), "?") for f in (np.logical_and, np.logical_or, np.logical_xor)],
    *[(f, FLOATS, "") for f in (np.divide, np.power, np.arctan2, np.hypot, np.copysign)],
    *[(f, ANY, "") for f in (np.remainder, np.floor_divide, np.fmod)],
    *[(f, (*INTEGERS, "?"), "") for f in (np.bitwise_and, np.bitwise_or, np.bitwise_xor)],
    *[(f, INTEGERS, "") for f in (np.left_shift, np.right_shift, np.gcd)],
    *[(f, ANY, "") for f in (np.negative, np.absolute, np.sign, np.square, np.positive)],
    *[(f, FLOATS, "") for f in (np.sqrt, np.floor, np.rint, np.exp, np.log, np.tanh, np.sin)],
    *[(f, (*FLOATS, *INTEGERS), "?") for f in (np.isnan, np.isfinite)],
    *[(f, (*ANY, "?"), "?") for f in (np.logical_not,)],
    *[(f, (*INTEGERS, "?"), "") for f in (np.invert,)],
    (np._core.umath.clip, ANY, ""),  # type: ignore[attr-defined]
]

#: Their last bit, or the sign of a zero, depends on whether a vector of elements is computed at
#: once, and so on the layout.
ROUGH = {
    np.power, np.arctan2, np.hypot, np.exp, np.log, np.tanh, np.sin, np.maximum, np.minimum,
    np.fmax, np._core.umath.clip,  # type: ignore[attr-defined]
}  # fmt: skip

#: NumPy 2.4 itself is wrong for floats where the output has gaps (x86-64 with AVX-512).
WITHOUT_GAPS = {np.isnan, np.isfinite}


@st.composite
def functions(draw: st.DrawFn) -> tuple[np.ufunc, str, str]:
    function, dtypes, made = draw(st.sampled_from(FUNCTIONS))
    dtype = draw(st.sampled_from(dtypes))
    return function, dtype, made or dtype


def call_of(function: np.ufunc, ins: list[Any], out: Layout, *, positional: bool = False) -> Call:
    """Lay arrays out; an index among the inputs stands for the output itself."""
    memory, target = out.make()
    kept: list[Any] = [memory]
    operands: list[Any] = []
    for value in ins:
        if isinstance(value, Layout):
            own, value = value.make()
            kept.append(own)
        operands.append(target if value is OUTPUT else value)
    if positional:
        return partial(function, *operands, target), kept
    return partial(function, *operands, out=target), kept


OUTPUT = object()


@examples(250)
@given(st.data())
def test_ufuncs_of_all_layouts(data: st.DataObject) -> None:
    function, dtype, made = data.draw(functions())
    shape = data.draw(shapes())
    low = 0 if function is np.power else -9  # the square root of -inf, or -inf to the power of 0.5
    ins: list[Any] = [data.draw(layouts(shape, dtype, low=low)) for _ in range(function.nin)]
    out = data.draw(layouts(shape, made, written=True, plain=function in WITHOUT_GAPS))
    if made == dtype and data.draw(st.integers(0, 3)) == 0:
        ins[data.draw(st.integers(0, function.nin - 1))] = OUTPUT
    positional = function.nin == 1 and data.draw(st.booleans())  # deprecated for some of the others
    assert agrees(
        lambda: call_of(function, ins, out, positional=positional),
        close if function in ROUGH else alike,
    )


@examples(150)
@given(st.data())
def test_operands_that_overlap_the_output(data: st.DataObject) -> None:
    """Views of one memory: NumPy computes as if the output lay elsewhere."""
    function = data.draw(st.sampled_from([np.add, np.subtract, np.negative, np.maximum]))
    dtype = data.draw(st.sampled_from(("f4", "i8", "u1")))
    shape = data.draw(shapes(most_axes=3, largest=5, empty=False))
    axes = data.draw(st.permutations(range(len(shape))))
    steps = [0] * len(shape)
    step = data.draw(st.integers(1, 2))
    for axis in axes:  # such that no two elements of the output lie in one place
        steps[axis] = step * data.draw(st.sampled_from([1, -1]))
        step *= shape[axis]
    places = [
        (data.draw(st.integers(0, 9)), steps if data.draw(st.booleans()) else data.draw(
            st.tuples(*[st.integers(-9, 9)] * len(shape))))
        for _ in range(function.nin)
    ]  # fmt: skip

    def make() -> Call:
        memory = numbers(np.random.default_rng(0), 400, np.dtype(dtype))
        out = window(memory, shape, 5, steps)
        ins = [window(memory, shape, first, own) for first, own in places]
        return partial(function, *ins, out=out), [memory]

    agrees(make, close)


def window(memory: Array, shape: tuple[int, ...], first: int, steps: Any) -> Array:
    """Return a view by the step along each axis, in elements."""
    for n, step in zip(shape, steps, strict=True):
        first -= min(0, (n - 1) * step)
    strides = [step * memory.itemsize for step in steps]
    return np.lib.stride_tricks.as_strided(memory[first:], shape, strides)


@examples(100)
@given(st.data())
def test_short_rows_are_staged(data: st.DataObject) -> None:
    """Rows, columns and numbers beside an output of many short rows, below outer axes."""
    function = data.draw(st.sampled_from([np.add, np.less, np.negative, np._core.umath.clip]))  # type: ignore[attr-defined]
    dtype = data.draw(st.sampled_from(("f2", "f4", "f8", "i1", "c8", "c16", "g")))
    if dtype in ("c8", "c16"):
        function = np.add
    outer = data.draw(st.sampled_from([(), (2,), (2, 3)]))
    shape = (*outer, data.draw(st.integers(3, 600)), data.draw(st.integers(1, 45)))
    parts = [
        tuple(n if data.draw(st.booleans()) else 1 for n in shape) for _ in range(function.nin)
    ]
    gaps = [data.draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (-1, 1)])) for _ in parts]
    ins = [
        Layout(part, dtype, steps=(*[1] * len(outer), *gap), seed=i)
        for i, (part, gap) in enumerate(zip(parts, gaps, strict=True))
    ]
    out = Layout(shape, "?" if function is np.less else dtype)
    assert agrees(lambda: call_of(function, list(ins), out), close)


@examples(100)
@given(st.data())
def test_numbers_beside_arrays(data: st.DataObject) -> None:
    """Numbers of Python and NumPy take part as NumPy has it; what it would convert stays there."""
    function = data.draw(st.sampled_from([np.add, np.multiply, np.subtract, np.power, np.less]))
    dtype = data.draw(st.sampled_from((*FLOATS, *INTEGERS, "?")))
    made = data.draw(st.sampled_from([dtype, "f4", "f8", "i8", "?"]))
    number = data.draw(
        st.one_of(
            st.integers(-300, 70000), st.floats(width=32), st.booleans(),
            st.sampled_from([np.float32(3), np.float64(0.1), np.int8(2), np.True_, np.uint64(7)]),
        )
    )  # fmt: skip
    array = data.draw(layouts((3, 4), dtype, spread=False, low=0))
    ins = [array, number] if data.draw(st.booleans()) else [number, array]
    out = Layout((3, 4), made)
    with np.errstate(all="ignore"):
        try:
            call_of(function, list(ins), out)[0]()
        except (TypeError, ValueError, OverflowError):
            assert not agrees(lambda: call_of(function, list(ins), out))
            return
    agrees(lambda: call_of(function, list(ins), out), close)


@examples(100)
@given(st.data())
def test_what_numpy_would_convert_stays_there(data: st.DataObject) -> None:
    """Dtypes that differ, the other byte order, odd addresses: refused, or the same."""
    dtypes = st.sampled_from(["f4", "f8", ">f4", "i4", ">i4", "?", "f2"])
    layouts_ = [
        Layout((3, 5), data.draw(dtypes), odd=data.draw(st.booleans()), seed=i) for i in range(3)
    ]
    *ins, out = layouts_

    def make() -> Call:
        call, memory = call_of(np.add, list(ins), out)
        return partial(call, casting="unsafe"), memory  # type: ignore[call-arg]

    taken = agrees(make, close)
    aligned = all(not a.odd or a.dtype == "?" for a in layouts_)
    assert taken == (len({a.dtype for a in layouts_}) == 1 and aligned and ">" not in out.dtype)


@dataclass
class Unhashable:
    """Compares by value, so that it has no hash."""

    factor: float

    def __call__(self, x: Array, out: Array) -> None:
        np.multiply(x, self.factor, out=out)


def bad_calls() -> dict[str, Callable[[], object]]:
    """Return what NumPy refuses, or takes in a way of its own, and what is not NumPy's."""
    x, out, large = np.ones((2, 3), "f4"), np.zeros((2, 3), "f4"), np.zeros((2, 300), "f4")
    read_only = np.zeros((2, 3), "f4")
    read_only.flags.writeable = False
    whole = np.arange(6).reshape(2, 3)
    return {
        "computed in another dtype": partial(np.multiply, x, x, out=out, dtype="f8"),
        "no output": partial(np.add, x, x),
        "outputs in a tuple": partial(np.add, x, x, out=(out,)),
        "two outputs": partial(np.modf, x, out, out.copy()),
        "masked": partial(np.add, x, x, out=out, where=x > 0),
        "read-only": partial(np.add, x, x, out=read_only),
        "too few inputs": partial(np.add, x),
        "a list": partial(np.add, x, [1.0, 2, 3], out=out),
        "a complex number": partial(np.add, x, 2j, out=out),
        "input of another shape": partial(np.add, x, x[:, :2], out=out),
        "input of more axes": partial(np.add, x[None], x, out=out),
        "output of another shape": partial(np.negative, x, out=large),
        "output of fewer axes": partial(np.negative, x, out=out[0]),
        "integer to a negative power": partial(np.power, whole, -whole, out=whole.copy()),
        "words": partial(np.equal, np.array(["a"]), np.array(["b"]), out=np.zeros(1, bool)),
        "objects": partial(np.add, np.array([1], "O"), 1, out=np.array([0], "O")),
        "unhashable": partial(Unhashable(2), x, out=out),
        "a method": partial(np.add.at, out, (0, 0), 1.0),
        "a function": lambda: None,
        "not NumPy's": partial(print, end=""),
    }


@pytest.mark.parametrize("name", list(bad_calls()))
def test_refused(name: str) -> None:
    assert not agrees(lambda: (bad_calls()[name], []))


def test_flags_of_the_processor_are_left_to_nobody() -> None:
    """A list divides by zero; what NumPy computes next raises nothing."""
    zeros, ones = np.zeros(4), np.ones((8, 8))
    call = partial(np.divide, np.ones(4), zeros, out=np.ones(4))
    assert written(call) is not None
    launch = native(call)
    later: list[Callable[[], object]] = [
        lambda: ones.astype("f4"),
        lambda: ones.astype("i4"),
        lambda: ones.sum(),
        lambda: ones @ ones,
        lambda: np.exp(ones),
        lambda: np.float64(3) * 2,
        lambda: np.int32(7) // np.int32(2),
        lambda: np.linalg.inv(ones + np.eye(8)),
    ]
    with np.errstate(all="raise"):
        for compute in later:
            launch()
            compute()
