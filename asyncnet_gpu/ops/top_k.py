"""The largest or smallest elements along an axis, and where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    NUMBERS,
    REQUIRED,
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
from asyncnet_gpu.ops.reduction_kernel import layouts, threads_for
from asyncnet_gpu.specs import TensorSpec, normal_axis, spec


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    axis = normal_axis(attrs["axis"], ins[0].ndim, where="top_k")
    k, shape = as_int(attrs["k"], "k", where="top_k"), list(ins[0].shape)
    if not 0 <= k <= shape[axis]:
        fail("top_k", f"k={k}", expected=f"0 to {shape[axis]}", got=k,
             remedy="Ask for no more than the axis has.")  # fmt: skip
    shape[axis] = k
    return TensorSpec(tuple(shape), ins[0].dtype), spec(shape, "int64")


def _order(xp: Any, x: Any, attrs: Attrs) -> Any:
    """Return the places of the elements in order along the last axis, equal ones as they come."""
    if not attrs["largest"]:
        return xp.argsort(x, -1, kind="stable")
    # Sorted from the back and turned around: the first of equal elements stays first.
    return x.shape[-1] - 1 - xp.argsort(x[..., ::-1], -1, kind="stable")[..., ::-1]


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x = xp.moveaxis(ins[0], attrs["axis"], -1)
    values, places = (xp.moveaxis(out, attrs["axis"], -1) for out in outs)
    k = attrs["k"]

    def launch() -> None:
        found = _order(xp, x, attrs)[..., :k]
        xp.copyto(places, found)
        xp.copyto(values, xp.take_along_axis(x, found, -1))

    return launch


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x,), (values, places) = ins, outs
    if not values.size:
        return ()
    axis = attrs["axis"] % x.ndim
    found = layouts(x, (axis,))
    if found is None:
        return None
    entry = f"top_k<{CUDA_TYPES[x.dtype.name]}, {str(bool(attrs['largest'])).lower()}>"
    inner = math.prod(x.shape[axis + 1 :])
    args = (x, values, places, *found, np.int64(attrs["k"]), np.int64(inner))
    grid = (values.size // attrs["k"], 1, 1)
    return (KernelLaunch("order.cu", entry, grid, (threads_for(x.shape[axis]), 1, 1), args),)


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x = np.moveaxis(np.asarray(ins[0]), attrs["axis"], -1)
    sign = -1 if attrs["largest"] else 1
    values = np.empty((*x.shape[:-1], attrs["k"]), x.dtype)
    places = np.empty(values.shape, np.int64)
    for at in np.ndindex(x.shape[:-1]):
        order = sorted(range(x.shape[-1]), key=lambda i: (sign * x[at][i].item(), i))[: attrs["k"]]
        places[at] = order
        values[at] = x[at][order]
    return np.moveaxis(values, -1, attrs["axis"]), np.moveaxis(places, -1, attrs["axis"])


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(20.0 * ins[0].size, 4.0 * ins[0].nbytes)


OPS = (
    Op(
        name="top_k",
        kind="TopK",
        doc="""Find the k largest (or smallest) elements along an axis, in order.

        Of equal elements the one that comes first is taken first.

        Parameters
        ----------
        x: any shape with at least one axis, numbers
        k
            How many.
        axis
            Along which.
        largest
            False for the smallest.

        Returns
        -------
        Values, and their places along the axis (int64).
        """,
        n_inputs=(1, 1),
        attrs={"k": REQUIRED, "axis": -1, "largest": True},
        infer=_infer,
        bind=_bind,
        reference=_reference,
        kernel=_kernel,
        cost=_cost,
        dtypes=NUMBERS,
        cases=(
            OpCase("largest", (f32(3, 7),), {"k": 3}),
            OpCase("smallest", (f32(5, 2),), {"k": 2, "axis": 0, "largest": False}),
            OpCase("middle", (spec((2, 70, 3), "float16"),), {"k": 5, "axis": 1}, rtol=0, atol=0),
            OpCase("all", (spec((300,), "int8"),), {"k": 300, "largest": False}, rtol=0, atol=0),
            OpCase("ties", (np.array([2, 1, 2, 2, 0]),), {"k": 4}, rtol=0, atol=0),
            OpCase("unsigned", (np.array([[0, 255, 7]], np.uint8),), {"k": 2}, rtol=0, atol=0),
        ),
    ),
)
