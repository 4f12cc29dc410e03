"""Where along an axis the largest or smallest element lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    NUMBERS,
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.ops.checks import as_int, fail
from asyncnet_gpu.ops.elementwise_kernel import CUDA_TYPES
from asyncnet_gpu.ops.reduction_kernel import row_launches
from asyncnet_gpu.ops.strided import launch_all, nothing
from asyncnet_gpu.specs import TensorSpec, normal_axis, spec

_INDEX = np.dtype(np.int64)


def _infer(name: str) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        shape = ins[0].shape
        axis = normal_axis(as_int(attrs["axis"], "axis", where=name), len(shape), where=name)
        if not shape[axis]:
            fail(name, f"nothing to choose from on axis {axis} of shape {shape}",
                 expected="at least one element", got=0,
                 remedy="An extremum of nothing is not defined.")  # fmt: skip
        middle = (1,) if attrs["keepdims"] else ()
        return (TensorSpec(shape[:axis] + middle + shape[axis + 1 :], _INDEX),)

    return infer


def _bind(method: str) -> Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]:
    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        x, axis = ins[0], attrs["axis"] % ins[0].ndim
        out = outs[0].reshape(x.shape[:axis] + x.shape[axis + 1 :])
        if not out.size:
            return nothing
        if not attrs["select_last_index"]:
            return partial(getattr(x, method), axis=axis, out=out)
        backwards = x[(slice(None),) * axis + (slice(None, None, -1),)]
        last = xp.full((), x.shape[axis] - 1, out.dtype)
        return launch_all(
            (
                partial(getattr(backwards, method), axis=axis, out=out),
                partial(xp.subtract, last, out, out=out),
            )
        )

    return bind


def _kernel(largest: bool) -> Callable[..., Sequence[KernelLaunch] | None]:
    def kernel(
        ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        x = ins[0]
        entry = f"arg<{CUDA_TYPES[x.dtype.name]}, {str(largest).lower()}>"
        last = np.int32(bool(attrs["select_last_index"]))
        return row_launches(entry, x, outs[0], (attrs["axis"] % x.ndim,), last)

    return kernel


def _reference(largest: bool) -> Callable[[Arrays, Attrs], tuple[Any, ...]]:
    def choose(row: list[Any], last: bool) -> int:
        nans = [i for i, value in enumerate(row) if value != value]
        wanted = max(row) if largest else min(row)
        places = nans or [i for i, value in enumerate(row) if value == wanted]
        return places[-1 if last else 0]

    def reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
        rows = np.moveaxis(np.asarray(ins[0]), attrs["axis"], -1)
        flat = rows.reshape(-1, rows.shape[-1]).tolist()
        found = [choose(row, attrs["select_last_index"]) for row in flat]
        made = np.array(found, _INDEX).reshape(rows.shape[:-1])
        return (np.expand_dims(made, attrs["axis"]) if attrs["keepdims"] else made,)

    return reference


def _case(name: str, x: Any, axis: int = 0, **attrs: bool) -> OpCase:
    return OpCase(name, (x,), {"axis": axis, **attrs}, rtol=0, atol=0)


_TIES = np.array([[1, 3, 3, 0, 0], [2, 2, 2, 2, 2], [5, 1, 0, 5, 1]], np.int32)
_NANS = np.array([[1, np.nan, 3, np.nan], [np.inf, 1, np.inf, -np.inf]], np.float32)

_CASES = (
    *(
        _case(f"plain_{d}", spec((5, 7), d), 1)
        for d in ("float32", "float64", "float16", "int32", "int64", "uint8")
    ),
    _case("middle", f32(3, 4, 5), -2, keepdims=True),
    _case("first", f32(50, 4), 0),
    _case("ties", _TIES, 1),
    _case("last_of_ties", _TIES, 1, select_last_index=True),
    _case("nan", _NANS, 1),
    _case("last_nan", _NANS, 1, select_last_index=True),
    _case("vector", f32(1000), 0),
    _case("no_outputs", f32(0, 3), 1),
)


def _define(name: str, kind: str, which: str, largest: bool) -> Op:
    return Op(
        name=name,
        kind=kind,
        doc=f"""Return the index of the {which} element along an axis; NaN comes before all.

    Parameters
    ----------
    x: any shape with at least one axis, numbers
    axis
        Axis to look along.
    keepdims
        True leaves an extent of 1 for `axis`.
    select_last_index
        True takes the last of equal elements, False the first.

    Returns
    -------
    The shape without `axis`, int64.

    Raises
    ------
    ShapeError
        If the axis is out of range or has no elements.
    """,
        n_inputs=(1, 1),
        attrs={"axis": 0, "keepdims": False, "select_last_index": False},
        infer=_infer(name),
        bind=_bind(name),
        reference=_reference(largest),
        kernel=_kernel(largest),
        cost=lambda ins, outs, attrs: Cost(2.0 * ins[0].size, float(ins[0].nbytes)),
        dtypes=NUMBERS,
        cases=_CASES,
    )


OPS = (
    _define("argmax", "ArgMax", "largest", True),
    _define("argmin", "ArgMin", "smallest", False),
)
