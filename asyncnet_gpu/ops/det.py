"""Determinants of square matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.ops.checks import fail
from asyncnet_gpu.ops.elementwise_kernel import CUDA_TYPES
from asyncnet_gpu.ops.strided import THREADS, copy_launches, nothing
from asyncnet_gpu.specs import TensorSpec


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    (x,) = ins
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        fail("det", "input", expected="square matrices (..., n, n)", got=x,
             remedy="Slice or pad the last two axes.")  # fmt: skip
    return (TensorSpec(x.shape[:-2], x.dtype),)


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x,), (out,) = ins, outs
    if not out.size:
        return nothing
    return lambda: xp.copyto(out, xp.linalg.det(x))


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x,), (out,), n = ins, outs, ins[0].shape[-1]
    copied = copy_launches([(x, scratch[0])])
    if copied is None:
        return None
    if not out.size:
        return ()
    entry = f"det<{CUDA_TYPES[x.dtype.name]}>"
    args = (scratch[0], out, np.int32(n))
    return (*copied, KernelLaunch("det.cu", entry, (out.size, 1, 1), (THREADS, 1, 1), args))


def _scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    return () if device_kind == "cpu" else (ins[0],)


def _exact(rows: list[list[float]]) -> float:
    """Expand by the first row, in fractions."""

    def expand(m: list[list[Fraction]]) -> Fraction:
        if not m:
            return Fraction(1)
        return sum(
            ((-1) ** j * m[0][j] * expand([r[:j] + r[j + 1 :] for r in m[1:]])
             for j in range(len(m))), Fraction(0),
        )  # fmt: skip

    return float(expand([[Fraction(v) for v in row] for row in rows]))


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x = np.asarray(ins[0], np.float64)
    found = [_exact(m.tolist()) for m in x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])]
    return (np.array(found).reshape(x.shape[:-2]),)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(ins[0].size * ins[0].shape[-1] * 2 / 3, 2.0 * ins[0].nbytes)


_SWAPS = np.array([[0, 2, 1], [3, 0, 0], [0, 0, 4]], np.float64)

OPS = (
    Op(
        name="det",
        kind="Det",
        doc="""Compute determinants.

        Parameters
        ----------
        x: shape (..., n, n), float32 or float64

        Returns
        -------
        Shape (...).
        """,
        n_inputs=(1, 1),
        infer=_infer,
        bind=_bind,
        reference=_reference,
        kernel=_kernel,
        scratch=_scratch,
        cost=_cost,
        dtypes=frozenset({"float32", "float64"}),
        onnx={"Det": OnnxMapping(since=11)},
        cases=(
            OpCase("one", (f32(4, 4),), rtol=1e-4, atol=1e-5),
            OpCase("several", (f32(2, 3, 5, 5),), rtol=1e-4, atol=1e-4),
            OpCase("pivots", (_SWAPS,), rtol=1e-12),
            OpCase("singular", (np.ones((2, 3, 3)),), rtol=0, atol=1e-12),
            OpCase("none", (f32(0, 2, 2),)),
        ),
    ),
)
