"""Keep the upper or lower triangle of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Attrs, KernelLaunch, Launch, Op, OpCase, Specs, f32
from asyncnet_gpu.ops.checks import as_int, fail
from asyncnet_gpu.ops.elementwise_kernel import layout_of
from asyncnet_gpu.ops.strided import CARRIERS, THREADS, grid_for
from asyncnet_gpu.specs import spec


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    as_int(attrs["k"], "k", where="triangle")
    if ins[0].ndim < 2:
        fail("triangle", "input", expected="at least two axes", got=ins[0],
             remedy="Reshape it to matrices.")  # fmt: skip
    return (ins[0],)


def _diagonal(shape: Sequence[int], attrs: Attrs) -> int:
    """Return `k`, so near to the matrix that it fits any integer."""
    rows, columns = shape[-2:]
    return max(-rows - 1, min(columns + 1, int(attrs["k"])))


def _mask(xp: Any, shape: Any, attrs: Attrs) -> Any:
    """Return True where elements are dropped; one mask serves all matrices."""
    rows, columns = shape[-2:]
    k = _diagonal(shape, attrs)
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


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x,), (out,) = ins, outs
    if not out.size:
        return ()
    layout = layout_of((x,), out)
    if layout is None:
        return None
    rows, columns = map(np.int64, out.shape[-2:])
    k, upper = np.int64(_diagonal(out.shape, attrs)), np.int32(bool(attrs["upper"]))
    return (
        KernelLaunch(
            "triangle.cu", f"triangle<{CARRIERS[out.dtype.itemsize]}>", grid_for(out.size),
            (THREADS, 1, 1), (x, out, layout, rows, columns, k, upper),
        ),
    )  # fmt: skip


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
        inplace=(0,),
        attrs={"k": 0, "upper": True},
        infer=_infer,
        bind=_bind,
        kernel=_kernel,
        reference=_reference,
        cases=(
            OpCase("upper", (f32(4, 5),), rtol=0, atol=0),
            OpCase("lower", (f32(2, 4, 4),), {"k": -1, "upper": False}, rtol=0, atol=0),
            OpCase("far", (spec((3, 3), "int64"),), {"k": 99}, rtol=0, atol=0),
            OpCase("half", (spec((3, 2, 5), "float16"),), {"upper": False}, rtol=0, atol=0),
            OpCase("flags", (spec((2, 3, 4), "bool"),), {"k": 2}, rtol=0, atol=0),
            OpCase("nothing", (f32(3, 4),), {"k": -(1 << 70), "upper": False}, rtol=0, atol=0),
            OpCase("nan", (np.full((3, 4), np.nan, np.float32),), rtol=0, atol=0),
            OpCase("large", (f32(3, 330, 301),), {"k": 5}, rtol=0, atol=0, perf=True),
            OpCase("empty", (f32(2, 0, 3),), {"k": 1}, rtol=0, atol=0),
        ),
    ),
)
