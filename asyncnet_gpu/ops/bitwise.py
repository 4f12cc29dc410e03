"""Bits of integers: and, or, exclusive or, not, shifts, and reading them as another dtype."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    INTEGERS,
    REQUIRED,
    Arrays,
    Attrs,
    KernelLaunch,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    same_dtype,
)
from asyncnet_gpu.ops.checks import fail
from asyncnet_gpu.ops.elementwise_kernel import binary_kernel, unary_kernel, unary_launch
from asyncnet_gpu.specs import TensorSpec, as_dtype, broadcast, spec

UNSIGNED = frozenset(name for name in INTEGERS if name.startswith("u"))


_NOTE = " A shift by the width of the dtype or more, or by less than 0, moves every bit out."
_SHIFTED = np.array([[7, -7, 100, 1], [-100, 1, -1, -128]])
_FAR = {
    "int8": [7, 8, 31, -1], "int16": [15, 16, 32, -1], "int32": [31, 32, 64, -1],
    "int64": [63, 64, 100, -1], "uint8": [7, 8, 31, 32], "uint64": [63, 64, 2**63, 1],
}  # fmt: skip


def _more_cases(dtype: str, n: int, *, far: bool) -> tuple[OpCase, ...]:
    """Return cases of shapes, and for shifts of widths."""
    shapes = {
        "empty": ((0, 3), (3,)), "scalar": ((), ()), "one": ((1,), (70,)),
        "broadcast": ((4, 1, 3), (5, 1)), "nine_axes": ((2, 1) * 4 + (2,), (2,) * 9),
    }  # fmt: skip
    found = {name: [spec(s, dtype) for s in pair[:n]] for name, pair in shapes.items()}
    cases = [OpCase(name, tuple(ins), rtol=0, atol=0, low=0, high=7) for name, ins in found.items()]
    for wide, by in _FAR.items() if far else ():
        arrays = _SHIFTED.astype(wide), np.array(by, wide)
        cases.append(OpCase(f"far_{wide}", arrays, rtol=0, atol=0))
    return tuple(cases)


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
        kernel=(binary_kernel if n == 2 else unary_kernel)(kind),
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
        + _more_cases(some, n, far=name.startswith("shift")),
    )  # fmt: skip


def _shift(xp: Any, function: str, x: Any, by: Any, out: Any) -> None:
    """Shift as NumPy does, for more axes than the kernel takes: CuPy leaves C++'s undefined."""
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


def _kernel_cast(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    carrier = np.dtype(f"u{outs[0].dtype.itemsize}")
    return unary_launch("Same", ins[0].view(carrier), outs[0].view(carrier))


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
        kernel=_kernel_cast,
        reference=_reference_cast,
        cases=(
            OpCase("float_bits", (spec((3, 4), "float32"),), {"dtype": "uint32"}, rtol=0, atol=0),
            OpCase("int_bits", (spec((5,), "int64"),), {"dtype": "float64"}, rtol=0, atol=0),
            OpCase("halves", (spec((2, 9), "float16"),), {"dtype": "int16"}, rtol=0, atol=0),
            OpCase("flags", (spec((7,), "bool"),), {"dtype": "uint8"}, rtol=0, atol=0),
            OpCase("empty", (spec((0, 3), "int32"),), {"dtype": "float32"}, rtol=0, atol=0),
            OpCase("scalar", (spec((), "float32"),), {"dtype": "int32"}, rtol=0, atol=0),
        ),
    ),
)  # fmt: skip
