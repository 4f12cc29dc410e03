"""Pooling over all spatial positions: the maximum or the mean of each plane."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    NUMBERS,
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
from asyncnet_gpu.ops.reduction_kernel import parts_scratch, reduce_launches
from asyncnet_gpu.ops.strided import launch_all, nothing
from asyncnet_gpu.ops.windows import check_spatial
from asyncnet_gpu.specs import TensorSpec, spec


def _infer_global(where: str) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        n = check_spatial(ins[0].ndim, None, where=where, shape=ins[0].shape)
        if 0 in ins[0].shape[2:]:
            fail(where, "no position to pool", expected="spatial extents of at least 1",
                 got=ins[0].shape, remedy="Check the shapes before this node.")  # fmt: skip
        return (TensorSpec((*ins[0].shape[:2], *(1,) * n), ins[0].dtype),)

    return infer


def _planes(x: Any) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _scratch_global_max(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    return () if device_kind == "cpu" else parts_scratch(ins[0], _planes(ins[0]))


def _scratch_global_average(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    if device_kind != "cpu":
        return parts_scratch(ins[0], _planes(ins[0]))
    # The mean of float16 is summed in float32, of which only the sums need room.
    sums = TensorSpec(outs[0].shape, np.dtype(np.float32))
    return (sums,) if ins[0].dtype == np.float16 else ()


def _bind_global_average(
    xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Launch:
    (x,), (out,) = ins, outs
    if not out.size:
        return nothing
    total = out
    if out.dtype == np.float16:
        # On CUDA the scratch is the kernel's.
        total = scratch[0] if scratch and xp is np else xp.empty(out.shape, np.float32)
    count = total.dtype.type(math.prod(x.shape[2:]))
    add_up = partial(
        xp.sum, x, axis=_planes(x), dtype=total.dtype, out=total, keepdims=True
    )  # fmt: skip
    return launch_all([add_up, partial(xp.divide, total, count, out, casting="same_kind")])


def _bind_global_max(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    if not outs[0].size:
        return nothing
    return partial(xp.amax, ins[0], axis=_planes(ins[0]), out=outs[0], keepdims=True)


def _kernel_global(
    largest: bool,
) -> Callable[[Arrays, Arrays, Attrs, Arrays], Sequence[KernelLaunch] | None]:
    def kernel(
        ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        functions = ("Same", "Largest", "Same") if largest else ("Same", "Sum", "Mean")
        return reduce_launches(ins[0], outs[0], _planes(ins[0]), functions, scratch)

    return kernel


def _reference_global_average(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x = np.asarray(ins[0], np.float64)
    out = np.zeros((*x.shape[:2], *(1,) * (x.ndim - 2)))
    for image, channel in np.ndindex(x.shape[:2]):
        out[image, channel] = x[image, channel].mean()
    return (out,)


def _reference_global_max(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    (x,) = ins
    out = np.zeros((*x.shape[:2], *(1,) * (x.ndim - 2)), x.dtype)
    for image, channel in np.ndindex(x.shape[:2]):
        out[image, channel] = np.sort(x[image, channel], None)[-1]
    return (out,)


def _cost_global(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(float(ins[0].size), float(ins[0].nbytes + outs[0].nbytes))


_GLOBAL_DOC = """{what} over all spatial positions.

Parameters
----------
x: (n, c, *spatial) with 1 to 3 spatial axes

Returns
-------
(n, c, 1, ...), same dtype.
"""

OPS = (
    Op(
        name="global_max_pool",
        kind="GlobalMaxPool",
        doc=_GLOBAL_DOC.format(what="Maximum"),
        n_inputs=(1, 1),
        infer=_infer_global("global_max_pool"),
        bind=_bind_global_max,
        kernel=_kernel_global(True),
        reference=_reference_global_max,
        scratch=_scratch_global_max,
        cost=_cost_global,
        dtypes=NUMBERS,
        onnx={"GlobalMaxPool": OnnxMapping()},
        cases=(
            OpCase("images", (f32(2, 3, 5, 4),), rtol=0, atol=0),
            OpCase("1d", (f32(2, 3, 300),), rtol=0, atol=0),
            OpCase("half", (spec((2, 3, 5, 4), "float16"),), rtol=0, atol=0),
            *(
                OpCase(d, (spec((2, 3, 5, 4), d),), rtol=0, atol=0)
                for d in ("float64", "int8", "int32", "int64", "uint8", "uint64")
            ),
            OpCase("nan", (np.array([[[1, np.nan, 3], [-np.inf, -2, -1]]], np.float32),)),
            OpCase("no_images", (spec((0, 3, 5), "int64"),), rtol=0, atol=0),
            OpCase("parts", (f32(1, 2, 9001),), rtol=0, atol=0),
        ),
    ),
    Op(
        name="global_average_pool",
        kind="GlobalAveragePool",
        doc=_GLOBAL_DOC.format(what="Mean"),
        n_inputs=(1, 1),
        infer=_infer_global("global_average_pool"),
        bind=_bind_global_average,
        kernel=_kernel_global(False),
        reference=_reference_global_average,
        scratch=_scratch_global_average,
        cost=_cost_global,
        dtypes=FLOATS,
        onnx={"GlobalAveragePool": OnnxMapping()},
        cases=(
            OpCase("images", (f32(2, 3, 5, 4),), rtol=1e-5, atol=1e-6),
            OpCase("3d", (f32(2, 3, 5, 4, 3),), rtol=1e-5, atol=1e-6),
            OpCase("half", (spec((2, 3, 50, 40), "float16"),), rtol=1e-3, atol=1e-4),
            OpCase("double", (spec((2, 3, 5, 4), "float64"),), rtol=1e-12, atol=1e-12),
            OpCase("no_images", (f32(0, 3, 5, 4),), rtol=0, atol=0),
            OpCase("parts", (f32(1, 2, 9001),), rtol=1e-5, atol=1e-6),
            OpCase("layer", (f32(1, 256, 7, 7),), rtol=1e-5, atol=1e-6, perf=True),
        ),
    ),
)  # fmt: skip
