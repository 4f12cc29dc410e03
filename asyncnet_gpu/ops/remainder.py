"""Remainders: `mod` has the sign of the divisor, as in Python; `fmod` of the dividend, as in C."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    NUMBERS,
    Arrays,
    Attrs,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.elementwise_kernel import binary_kernel
from asyncnet_gpu.ops.ufunc import elementwise_cost
from asyncnet_gpu.specs import TensorSpec, broadcast


def _mod(xp: Any, a: Any, b: Any, out: Any) -> None:
    """Move C's remainder to the side of the divisor: exact, where a - floor(a / b) * b is not."""
    rest = xp.fmod(a, b)
    other = (rest != 0) & (xp.signbit(rest) != xp.signbit(b))
    rest = xp.where(other, rest + b, rest)
    xp.copyto(out, xp.where(rest == 0, xp.copysign(xp.zeros_like(rest), b), rest))


def _exact(name: str, x: Any, y: Any) -> Any:
    """Return the remainder of two Python numbers: theirs and the C library's are exact."""
    if isinstance(x, int):
        if y == 0:
            return 0
        return x % y if name == "mod" else (abs(x) % abs(y)) * (1 if x >= 0 else -1)
    if y == 0 or math.isinf(x):
        return math.nan
    return x % y if name == "mod" else math.fmod(x, y)


_EDGES = np.array([
    [np.inf, -np.inf, np.nan, 5, -5, 5, 0, -3, 2.5, 6e4, 1e30],
    [3, 3, 2, np.inf, np.inf, 0, 4, -3, np.nan, -7, 3],
])  # fmt: skip
_SHAPES = (
    ("empty", ((0, 3), (3,))), ("scalar", ((), ())), ("one", ((1,), (70,))),
    ("broadcast", ((4, 1, 3), (5, 1))), ("nine_axes", ((2, 1) * 4 + (2,), (2,) * 9)),
)  # fmt: skip


def _integer_case(dtype: str) -> OpCase:
    """Every pair of numbers at the ends of a dtype and around 0."""
    info = np.iinfo(dtype)
    ends = [info.min, info.min + 1, info.max - 1, info.max]
    some = np.array(sorted({*ends, 0, 1, 3, *((-1, -3) if info.min else ())}), dtype)
    return OpCase(f"ends_{dtype}", (some[:, None].copy(), some), rtol=0, atol=0)


def _define(name: str, kind: str, cuda: str, function: str, formula: str) -> Op:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        shape = broadcast([s.shape for s in ins], where=name)
        return (TensorSpec(shape, same_dtype(ins, where=name)),)

    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        if name == "mod" and xp is not np and ins[0].dtype.kind == "f":
            return partial(_mod, xp, ins[0], ins[1], outs[0])
        return partial(getattr(xp, function), ins[0], ins[1], out=outs[0])

    def reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
        a, b = np.broadcast_arrays(*ins)
        out = np.empty(a.shape, np.asarray(ins[0]).dtype)
        for at in np.ndindex(out.shape):
            x, y = a[at].item(), b[at].item()
            out[at] = _exact(name, x, y)
        return (out,)

    a = np.array([[-7, 7, -8, 9], [5, -5, 3, 0]])
    b = np.array([3, -3, 2, 5])
    return Op(
        name=name, kind=kind, n_inputs=(2, 2), infer=infer, bind=bind, reference=reference,
        kernel=binary_kernel(cuda),
        doc=f"""Compute ``{formula}`` elementwise, broadcasting.

        Parameters
        ----------
        a, b: any shapes that broadcast, one dtype

        Returns
        -------
        The common shape, the same dtype.
        """,
        inplace=(0, 1), dtypes=NUMBERS, cost=elementwise_cost(20),
        cases=tuple(
            OpCase(dtype, (a.astype(dtype), b.astype(dtype)), rtol=1e-6, atol=1e-6)
            for dtype in ("int32", "int64", "float32", "float64")
        )
        + tuple(
            OpCase(f"edges_{e.dtype}", (e[0], e[1]), rtol=1e-6, atol=0)
            for e in (_EDGES, _EDGES.astype(np.float32), _EDGES[:, :-1].astype(np.float16))
        )
        + tuple(_integer_case(dtype) for dtype in ("int8", "int32", "int64", "uint8", "uint64"))
        + tuple(OpCase(name, tuple(f32(*s) for s in pair), rtol=1e-6) for name, pair in _SHAPES),
    )  # fmt: skip


OPS = (
    _define("mod", "Mod", "Mod", "remainder", "a - floor(a / b) * b"),
    _define("fmod", "FMod", "Fmod", "fmod", "a - trunc(a / b) * b"),
)
