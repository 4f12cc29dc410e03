"""Choose between two blobs element by element."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    Arrays,
    Attrs,
    KernelLaunch,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.elementwise_kernel import layout_of
from asyncnet_gpu.ops.strided import CARRIERS, THREADS, grid_for, launch_all
from asyncnet_gpu.ops.ufunc import elementwise_cost
from asyncnet_gpu.specs import TensorSpec, broadcast, spec


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    dtype = same_dtype(ins[1:], where="where")
    return (TensorSpec(broadcast([s.shape for s in ins], where="where"), dtype),)


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    condition, a, b = ins
    # b first: the output may be b itself, and copying it onto itself changes nothing.
    return launch_all(
        (
            partial(xp.copyto, outs[0], b),
            partial(xp.copyto, outs[0], a, where=condition),
        )
    )


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    out = outs[0]
    if not out.size:
        return ()
    layout: Any = np.int64(out.size)
    flat = all(x.shape == out.shape and x.flags.c_contiguous for x in ins)
    if not flat:
        layout = layout_of(ins, out)
        if layout is None:
            return None
    entry = f"where{'' if flat else '_strided'}<{CARRIERS[out.dtype.itemsize]}>"
    return (
        KernelLaunch("where.cu", entry, grid_for(out.size), (THREADS, 1, 1), (*ins, out, layout)),
    )


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    condition, a, b = np.broadcast_arrays(*ins)
    chosen = [y if c else z for c, y, z in zip(condition.flat, a.flat, b.flat, strict=True)]
    return (np.array(chosen, np.asarray(ins[1]).dtype).reshape(condition.shape),)


def _case(name: str, *inputs: Any, perf: bool = False) -> OpCase:
    return OpCase(name, inputs, rtol=0, atol=0, perf=perf)


_FLAG = spec((5, 7), "bool")

OPS = (
    Op(
        name="where",
        kind="Where",
        doc="""Compute ``a if condition else b`` element by element.

        Parameters
        ----------
        condition: bool
        a, b: any dtype, the same for both

        Returns
        -------
        The common shape of the three, the dtype of `a`.

        Raises
        ------
        ShapeError
            If shapes do not broadcast, dtypes of `a` and `b` differ or the condition is not bool.
        """,
        n_inputs=(3, 3),
        infer=_infer,
        bind=_bind,
        reference=_reference,
        kernel=_kernel,
        inplace=(2,),
        cost=elementwise_cost(1),
        dtypes=frozenset({"bool"}),
        cases=(
            *(
                _case(f"plain_{d}", _FLAG, spec((5, 7), d), spec((5, 7), d))
                for d in ("float32", "float64", "float16", "int64", "int8", "bool")
            ),
            _case("rows", spec((4, 1, 3), "bool"), f32(5, 1), f32(3)),
            _case("one_flag", spec((), "bool"), f32(3, 4), f32(3, 4)),
            _case("numbers", _FLAG, f32(), f32(1)),
            _case("scalar", spec((), "bool"), f32(), f32()),
            _case("empty", spec((0, 7), "bool"), f32(7), f32(0, 7)),
            _case("nan", _FLAG, np.full((5, 7), np.nan, np.float32), f32(5, 7)),
            _case("large", spec((330, 301), "bool"), f32(330, 301), f32(330, 301), perf=True),
        ),
        onnx={"Where": OnnxMapping(since=9)},
    ),
)
