"""Softmax and its logarithm along one axis: exp(x - max) / sum(exp(x - max))."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    Arrays,
    Attrs,
    Cost,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.specs import TensorSpec, normal_axis, spec


def _infer(name: str) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        normal_axis(attrs["axis"], ins[0].ndim, where=name)
        return (ins[0],)

    return infer


def _scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    axis = attrs["axis"] % ins[0].ndim
    shape = tuple(1 if i == axis else e for i, e in enumerate(ins[0].shape))
    one = TensorSpec(shape, ins[0].dtype)
    return (one, ins[0])


def _bind_softmax(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, out, row = ins[0], outs[0], scratch[0]
    axis = attrs["axis"]
    if not x.size:
        return lambda: None

    def launch() -> None:
        xp.max(x, axis=axis, keepdims=True, out=row)
        xp.subtract(x, row, out=out)
        xp.exp(out, out=out)
        xp.sum(out, axis=axis, keepdims=True, out=row)
        xp.true_divide(out, row, out=out)

    return launch


def _bind_log(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, out, row, powers = ins[0], outs[0], scratch[0], scratch[1]
    axis = attrs["axis"]
    if not x.size:
        return lambda: None

    def launch() -> None:
        xp.max(x, axis=axis, keepdims=True, out=row)
        xp.subtract(x, row, out=out)
        xp.exp(out, out=powers)
        xp.sum(powers, axis=axis, keepdims=True, out=row)
        xp.log(row, out=row)
        xp.subtract(out, row, out=out)

    return launch


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x = np.asarray(ins[0], np.float64)
    if not x.size:
        return (x,)
    powers = np.exp(x - x.max(attrs["axis"], keepdims=True))
    return (powers / powers.sum(attrs["axis"], keepdims=True),)


def _reference_log(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    return (np.log(_reference(ins, attrs)[0]),)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(flops=20.0 * ins[0].size, bytes=5.0 * ins[0].nbytes)


_CASES = (
    OpCase("rows", (f32(6, 10),), {"axis": -1}),
    OpCase("middle", (f32(3, 4, 5),), {"axis": 1}),
    OpCase("float64", (spec((4, 9), "float64"),), {"axis": 1}, rtol=1e-12, atol=1e-13),
    OpCase("empty", (f32(0, 4),), {"axis": -1}),
)


def _definition(
    name: str, kind: str, formula: str, bind: Callable[..., Launch], reference: Callable[..., Any]
) -> Op:
    return Op(
        name=name,
        kind=kind,
        doc=f"""Compute ``{formula}`` along an axis, shifted so that nothing overflows.

    Parameters
    ----------
    x: any shape with at least one axis, float
    axis
        Axis to sum over; the last by default.

    Returns
    -------
    Same shape and dtype.
    """,
        n_inputs=(1, 1),
        attrs={"axis": -1},
        infer=_infer(name),
        bind=bind,
        reference=reference,
        inplace=(0,),
        scratch=_scratch,
        cost=_cost,
        cases=_CASES,
        dtypes=FLOATS,
        onnx={kind: OnnxMapping(since=13)},
    )


OPS = (
    _definition("softmax", "Softmax", "exp(x) / sum(exp(x))", _bind_softmax, _reference),
    _definition("log_softmax", "LogSoftmax", "log(softmax(x))", _bind_log, _reference_log),
)
