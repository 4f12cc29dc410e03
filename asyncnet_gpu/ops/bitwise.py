"""Bits of integers: and, or, exclusive or, not, shifts, and reading them as another dtype."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    INTEGERS,
    REQUIRED,
    Arrays,
    Attrs,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    same_dtype,
)
from asyncnet_gpu.ops.checks import fail
from asyncnet_gpu.specs import TensorSpec, as_dtype, broadcast, spec

UNSIGNED = frozenset(name for name in INTEGERS if name.startswith("u"))


_NOTE = " A shift by the width of the dtype or more, or by less than 0, moves every bit out."
_FAR = np.array([[7, -7, 100], [-100, 1, -1]], np.int32), np.array([31, 32, -1], np.int32)


def _define(
    name: str, kind: str, function: str, formula: str, *, n: int, dtypes: frozenset[str] = INTEGERS,
    onnx: bool = True, note: str = "",
) -> Op:  # fmt: skip
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        shape = broadcast([s.shape for s in ins], where=name)
        return (TensorSpec(shape, same_dtype(ins, where=name)),)

    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        if name.startswith("shift") and xp is not np:
            return partial(_shift, xp, function, ins[0], ins[1], outs[0])
        return partial(getattr(xp, function), *ins, out=outs[0])

    def reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
        dtype, arrays = np.asarray(ins[0]).dtype, np.broadcast_arrays(*ins)
        bits = 8 * dtype.itemsize
        out = np.empty(arrays[0].shape, dtype)
        for at in np.ndindex(out.shape):
            number = _on_integers(name, *[int(a[at]) for a in arrays])
            number %= 1 << bits
            wraps = dtype.kind == "i" and number >> (bits - 1)
            out[at] = number - (1 << bits) if wraps else number
        return (out,)

    high = 7 if n == 2 and name.startswith("shift") else 100
    rng = np.random.default_rng(0)
    some = "uint8" if dtypes is UNSIGNED else "int32"
    wide = "uint64" if dtypes is UNSIGNED else "int64"
    shapes = ((4, 5), (5,))[:n]
    return Op(
        name=name, kind=kind, n_inputs=(n, n), infer=infer, bind=bind, reference=reference,
        doc=f"""Compute ``{formula}`` on the bits of each element, broadcasting.{note}

        Parameters
        ----------
        x: any shape, integers of one dtype

        Returns
        -------
        The common shape, the same dtype.
        """,
        inplace=tuple(range(n)), dtypes=dtypes,
        onnx={kind: OnnxMapping(since=18)} if onnx else {},
        cases=tuple(
            OpCase(dtype, tuple(rng.integers(0, high, s).astype(dtype) for s in shapes),
                   rtol=0, atol=0)
            for dtype in (some, wide)
        )
        + ((OpCase("far", _FAR, rtol=0, atol=0),) if name.startswith("shift") else ()),
    )  # fmt: skip


def _shift(xp: Any, function: str, x: Any, by: Any, out: Any) -> None:
    """Shift as NumPy does: C++ leaves a shift by the width of the type or more undefined."""
    last = 8 * x.dtype.itemsize - 1
    inside = (by >= 0) & (by <= last)
    made = getattr(xp, function)(x, xp.where(inside, by, by.dtype.type(last)))
    gone = made if function == "right_shift" and x.dtype.kind == "i" else x.dtype.type(0)
    xp.copyto(out, xp.where(inside, made, gone), casting="unsafe")


def _on_integers(name: str, a: int, b: int = 0) -> int:
    return {
        "bitwise_and": lambda: a & b, "bitwise_or": lambda: a | b, "bitwise_xor": lambda: a ^ b,
        "bitwise_not": lambda: ~a, "shift_left": lambda: a << b if 0 <= b < 64 else 0,
        "shift_right": lambda: a >> (b if b >= 0 else 64),
    }[name]()  # fmt: skip


def _infer_cast(ins: Specs, attrs: Attrs) -> Specs:
    dtype = as_dtype(attrs["dtype"], where="bit_cast")
    if dtype.itemsize != ins[0].dtype.itemsize:
        fail("bit_cast", f"dtype={attrs['dtype']}", expected=f"{ins[0].dtype.itemsize} bytes",
             got=dtype.itemsize, remedy="Use cast to convert values.")  # fmt: skip
    return (TensorSpec(ins[0].shape, dtype),)


def _bind_cast(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return partial(xp.copyto, outs[0].view(ins[0].dtype), ins[0])


def _reference_cast(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    source = np.asarray(ins[0])
    return (np.frombuffer(source.tobytes(), attrs["dtype"]).reshape(source.shape),)


OPS = (
    _define("bitwise_and", "BitwiseAnd", "bitwise_and", "a & b", n=2),
    _define("bitwise_or", "BitwiseOr", "bitwise_or", "a | b", n=2),
    _define("bitwise_xor", "BitwiseXor", "bitwise_xor", "a ^ b", n=2),
    _define("bitwise_not", "BitwiseNot", "invert", "~x", n=1),
    _define("shift_left", "ShiftLeft", "left_shift", "a << b", n=2, onnx=False, note=_NOTE),
    _define("shift_right", "ShiftRight", "right_shift", "a >> b", n=2, onnx=False, note=_NOTE),
    Op(
        name="bit_cast",
        kind="BitCast",
        doc="""Read the bits of each element as another dtype of the same size.

        Parameters
        ----------
        x: any shape, any dtype
        dtype
            With the same number of bytes.
        """,
        n_inputs=(1, 1),
        attrs={"dtype": REQUIRED},
        infer=_infer_cast,
        bind=_bind_cast,
        reference=_reference_cast,
        cases=(
            OpCase("float_bits", (spec((3, 4), "float32"),), {"dtype": "uint32"}, rtol=0, atol=0),
            OpCase("int_bits", (spec((5,), "int64"),), {"dtype": "float64"}, rtol=0, atol=0),
        ),
    ),
)  # fmt: skip
