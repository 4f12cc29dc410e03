"""Conversion between dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    ANY,
    REQUIRED,
    Arrays,
    Attrs,
    KernelLaunch,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.ops.elementwise_kernel import unary_launch
from asyncnet_gpu.ops.ufunc import elementwise_cost
from asyncnet_gpu.specs import TensorSpec, as_dtype, spec


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    return (TensorSpec(ins[0].shape, as_dtype(attrs["dtype"], where="cast")),)


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return partial(xp.copyto, outs[0], ins[0], casting="unsafe")


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    return unary_launch("Same", ins[0], outs[0])


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x, dtype = np.asarray(ins[0]), np.dtype(attrs["dtype"])
    if dtype.kind == "b":
        return (x != 0,)
    if dtype.kind == "f":
        wide, info = x.astype(np.float64), np.finfo(dtype)
        largest = float(info.max) * (1 + 2.0 ** -(info.nmant + 2))  # halfway to the next number
        return (np.where(np.abs(wide) >= largest, np.sign(wide) * np.inf, wide),)
    whole = [int(value) for value in x.reshape(-1).tolist()]
    bits = 8 * dtype.itemsize
    wrapped = [value % (1 << bits) for value in whole]
    if dtype.kind == "i":
        wrapped = [value - (1 << bits) if value >> (bits - 1) else value for value in wrapped]
    return (np.array(wrapped, dtype).reshape(x.shape),)


def _case(source: str, target: str) -> OpCase:
    close = {"float16": 5e-4, "float32": 6e-8}.get(target, 0.0)
    signed = source[0] not in "ub" and target[0] != "u"
    low = -100.0 if signed or target[0] == "i" else 0.0
    return OpCase(
        f"{source}_{target}", (spec((5, 7), source),), {"dtype": target}, rtol=close, atol=close,
        low=0.0 if source[0] == "u" else low, high=100.0,
    )  # fmt: skip


_PAIRS = (
    ("float32", "float64"), ("float64", "float32"), ("float32", "float16"), ("float16", "float32"),
    ("float64", "float16"), ("float32", "int32"), ("float32", "uint8"), ("float64", "int64"),
    ("float16", "int8"), ("float32", "bool"), ("int32", "float32"), ("int64", "float16"),
    ("int64", "int32"), ("int32", "bool"), ("bool", "float32"), ("bool", "int64"),
    ("uint8", "float32"), ("uint16", "uint64"), ("int16", "int16"), ("uint32", "float64"),
)  # fmt: skip
_WIDE = np.array([0, 1, 255, 256, 300, -1, -129, 2**31, -(2**31) - 5, 2**40 + 7])

OPS = (
    Op(
        name="cast",
        kind="Cast",
        doc="""Convert to another dtype, as C does.

        Floats to integers are cut off towards zero; integers that do not fit wrap around; anything
        but 0 is True. Floats that do not fit an integer, and NaN, give no defined number.

        Parameters
        ----------
        x: any shape, any dtype
        dtype
            Name of the new dtype.

        Returns
        -------
        The same shape, the new dtype.

        Raises
        ------
        ShapeError
            If the dtype is not supported.
        """,
        n_inputs=(1, 1),
        attrs={"dtype": REQUIRED},
        infer=_infer,
        bind=_bind,
        reference=_reference,
        kernel=_kernel,
        cost=elementwise_cost(1),
        dtypes=ANY,
        cases=(
            *(_case(source, target) for source, target in _PAIRS),
            OpCase("wraps_int8", (_WIDE,), {"dtype": "int8"}, rtol=0, atol=0),
            OpCase("wraps_uint16", (_WIDE,), {"dtype": "uint16"}, rtol=0, atol=0),
            OpCase("wraps_int32", (_WIDE,), {"dtype": "int32"}, rtol=0, atol=0),
            OpCase(
                "overflows",
                (np.array([1e6, -1e6, np.nan, np.inf, 1e-9], np.float32),),
                {"dtype": "float16"},
                rtol=0,
                atol=1e-7,
            ),
            OpCase("empty", (f32(0, 3),), {"dtype": "int32"}),
            OpCase("scalar", (f32(),), {"dtype": "float64"}),
            OpCase("large", (f32(330, 301),), {"dtype": "float16"}, rtol=5e-4, perf=True),
        ),
    ),
)
