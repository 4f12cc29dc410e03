"""Keep the upper or lower triangle of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Attrs, Launch, Op, OpCase, Specs, f32
from asyncnet_gpu.ops.checks import as_int, fail
from asyncnet_gpu.specs import spec


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    as_int(attrs["k"], "k", where="triangle")
    if ins[0].ndim < 2:
        fail("triangle", "input", expected="at least two axes", got=ins[0],
             remedy="Reshape it to matrices.")  # fmt: skip
    return (ins[0],)


def _mask(xp: Any, shape: Any, attrs: Attrs) -> Any:
    """Return True where elements are dropped; one mask serves all matrices."""
    rows, columns = shape[-2:]
    k = max(-rows - 1, min(columns + 1, attrs["k"]))
    distance = xp.arange(columns)[None, :] - xp.arange(rows)[:, None]
    return distance < k if attrs["upper"] else distance > k


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, out = ins[0], outs[0]
    dropped = xp.ascontiguousarray(xp.broadcast_to(_mask(xp, x.shape, attrs), x.shape[-2:]))
    zero = xp.zeros((), x.dtype)

    def launch() -> None:
        if out is not x:
            xp.copyto(out, x)
        xp.copyto(out, zero, where=dropped)

    return launch


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    out = np.array(ins[0])
    for at in np.ndindex(out.shape):
        distance = at[-1] - at[-2]
        if (distance < attrs["k"]) if attrs["upper"] else (distance > attrs["k"]):
            out[at] = 0
    return (out,)


OPS = (
    Op(
        name="triangle",
        kind="Trilu",
        doc="""Set everything outside the upper or lower triangle of each matrix to zero.

        Parameters
        ----------
        x: shape (..., rows, columns), any dtype
        k
            Diagonal where the triangle begins: 0 is the main one, positive ones lie above it.
        upper
            True keeps what is on the diagonal and above, False what is on it and below.
        """,
        n_inputs=(1, 1),
        attrs={"k": 0, "upper": True},
        infer=_infer,
        bind=_bind,
        reference=_reference,
        cases=(
            OpCase("upper", (f32(4, 5),), rtol=0, atol=0),
            OpCase("lower", (f32(2, 4, 4),), {"k": -1, "upper": False}, rtol=0, atol=0),
            OpCase("far", (spec((3, 3), "int64"),), {"k": 99}, rtol=0, atol=0),
            OpCase("empty", (f32(2, 0, 3),), {"k": 1}, rtol=0, atol=0),
        ),
    ),
)
