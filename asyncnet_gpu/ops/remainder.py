"""Remainders: `mod` has the sign of the divisor, as in Python; `fmod` of the dividend, as in C."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import NUMBERS, Arrays, Attrs, Launch, Op, OpCase, Specs, same_dtype
from asyncnet_gpu.specs import TensorSpec, broadcast


def _mod(xp: Any, a: Any, b: Any, out: Any) -> None:
    """Move C's remainder to the side of the divisor: exact, where a - floor(a / b) * b is not."""
    rest = xp.fmod(a, b)
    other = (rest != 0) & (xp.signbit(rest) != xp.signbit(b))
    rest = xp.where(other, rest + b, rest)
    xp.copyto(out, xp.where(rest == 0, xp.copysign(xp.zeros_like(rest), b), rest))


_EDGES = [[np.inf, -np.inf, np.nan, 5, -5, 5, 0, -3, 1e30], [3, 3, 2, np.inf, np.inf, 0, 4, -3, 3]]


def _define(name: str, kind: str, function: str, formula: str) -> Op:
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
            # Exact in both: Python's remainder and the C library's.
            if isinstance(x, float) and (y == 0 or math.isinf(x)):
                out[at] = math.nan
            else:
                out[at] = x % y if name == "mod" else type(x)(math.fmod(x, y))
        return (out,)

    a = np.array([[-7, 7, -8, 9], [5, -5, 3, 0]])
    b = np.array([3, -3, 2, 5])
    return Op(
        name=name, kind=kind, n_inputs=(2, 2), infer=infer, bind=bind, reference=reference,
        doc=f"""Compute ``{formula}`` elementwise, broadcasting.

        Parameters
        ----------
        a, b: any shapes that broadcast, one dtype

        Returns
        -------
        The common shape, the same dtype.
        """,
        inplace=(0, 1), dtypes=NUMBERS,
        cases=tuple(
            OpCase(dtype, (a.astype(dtype), b.astype(dtype)), rtol=1e-6, atol=1e-6)
            for dtype in ("int32", "int64", "float32", "float64")
        )
        + (OpCase("edges", tuple(np.array(e, np.float32) for e in _EDGES), rtol=1e-6, atol=1e-6),),
    )  # fmt: skip


OPS = (
    _define("mod", "Mod", "remainder", "a - floor(a / b) * b"),
    _define("fmod", "FMod", "fmod", "a - trunc(a / b) * b"),
)
