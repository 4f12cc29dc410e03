"""Normalisation over trailing axes: layer normalisation, and by the mean square only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.blocks import Step, number
from asyncnet_gpu.ops.checks import as_int, fail
from asyncnet_gpu.ops.elementwise_kernel import CUDA_TYPES, compute_scalar
from asyncnet_gpu.ops.reduction_kernel import layouts, threads_for
from asyncnet_gpu.ops.reductions import reduce_step
from asyncnet_gpu.ops.rows import bind_rows, row_scratch
from asyncnet_gpu.specs import normal_axis, spec


def _infer(name: str) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        same_dtype(ins, where=name)
        x = ins[0]
        axis = normal_axis(as_int(attrs["axis"], "axis", where=name), x.ndim, where=name)
        for role, given in zip(("scale", "bias"), ins[1:], strict=False):
            if given.shape != x.shape[axis:]:
                wanted = f"that of the axes from {axis} on, {x.shape[axis:]}"
                fail(name, f"shape of the {role}", expected=wanted, got=given.shape,
                     remedy="Reshape or expand it.")  # fmt: skip
        return (x,)

    return infer


def _rows(shape: tuple[int, ...], attrs: Attrs) -> tuple[int, tuple[int, ...]]:
    """Return the number of rows and the shape of one."""
    axis = attrs["axis"] % len(shape)
    return math.prod(shape[:axis]), shape[axis:]


def _scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    if device_kind != "cpu":
        return ()
    return row_scratch(ins[0], _rows(ins[0].shape, attrs)[0], [1], 1)


def _bind(centre: bool) -> Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]:
    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        x, out, scale = ins[0], outs[0], ins[1]
        rows, row_shape = _rows(x.shape, attrs)
        axes = tuple(range(1, len(row_shape) + 1))
        if xp is not np:  # only where the kernel cannot: temporaries of its own
            wanted = row_scratch(spec(x.shape, x.dtype), rows, [1], 1)
            scratch = [xp.empty(s.shape, s.dtype) for s in wanted]

        def formula(a: Any, y: Any, blocks: Sequence[Any], sums: Sequence[Any]) -> list[Step]:
            total, squares = sums[0], blocks[0]
            flat = total.reshape(-1)
            count = number(xp, math.prod(row_shape), total)
            steps: list[Step] = []
            if centre:
                steps += [
                    reduce_step(xp, "add", a, axes, flat),
                    partial(xp.true_divide, total, count, out=total),
                    partial(xp.subtract, a, total, out=y),
                ]
                a = y
            steps += [
                partial(xp.multiply, a, a, out=squares),
                reduce_step(xp, "add", squares, axes, flat),
                partial(xp.true_divide, total, count, out=total),
                partial(xp.add, total, number(xp, attrs["epsilon"], total), out=total),
                partial(xp.sqrt, total, out=total),
                partial(xp.true_divide, a, total, out=y),
                partial(xp.multiply, y, scale, out=y),
            ]
            if len(ins) > 2:
                steps.append(partial(xp.add, y, ins[2], out=y))
            return steps

        ones = (1,) * len(row_shape)
        return bind_rows(xp, formula, x, out, rows, row_shape, [ones], scratch)

    return bind


def _kernel(centre: bool) -> Callable[..., Sequence[KernelLaunch] | None]:
    def kernel(
        ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        x, out = ins[0], outs[0]
        if not out.size:
            return ()
        found = layouts(x, tuple(range(attrs["axis"] % x.ndim, x.ndim)))
        if found is None or not all(array.flags.c_contiguous for array in ins[1:]):
            return None
        rows, row_shape = _rows(x.shape, attrs)
        flags = f"{str(centre).lower()}, {str(len(ins) > 2).lower()}"
        entry = f"normalise_rows<{CUDA_TYPES[x.dtype.name]}, {flags}>"
        args = (x, ins[1], ins[-1], out, *found, compute_scalar(attrs["epsilon"], x.dtype))
        block = (threads_for(math.prod(row_shape)), 1, 1)
        return (KernelLaunch("layer_norm.cu", entry, (rows, 1, 1), block, args),)

    return kernel


def _reference(centre: bool) -> Callable[[Arrays, Attrs], tuple[Any, ...]]:
    def reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
        x, *others = [np.asarray(array, np.float64) for array in ins]
        rows, row_shape = _rows(x.shape, attrs)
        out = np.empty((rows, *row_shape))
        for i, row in enumerate(x.reshape(rows, *row_shape)):
            apart = row - row.mean() if centre else row
            normal = apart / math.sqrt((apart**2).mean() + attrs["epsilon"])
            out[i] = normal * others[0] + (others[1] if len(others) > 1 else 0)
        return (out.reshape(x.shape),)

    return reference


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    moved = sum(s.nbytes for s in ins) + outs[0].nbytes
    return Cost(flops=8.0 * ins[0].size, bytes=float(moved))


def _cases(bias: bool) -> tuple[OpCase, ...]:
    def case(
        name: str, shape: tuple[int, ...], axis: int, dtype: str = "float32", **more: Any
    ) -> OpCase:
        close = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-12}[dtype]
        row = spec(shape[axis % len(shape) :], dtype)
        inputs = (spec(shape, dtype), row, row) if bias else (spec(shape, dtype), row)
        attrs = {"axis": axis, **more.pop("attrs", {})}
        return OpCase(name, inputs, attrs, rtol=close, atol=close, **more)

    far = np.random.default_rng(0).normal(1000.0, 0.5, (6, 50)).astype(np.float32)
    row = np.ones(50, np.float32)
    return (
        case("rows", (6, 50), -1),
        case("several_axes", (3, 4, 5), 1),
        case("all_axes", (3, 4), 0),
        case("float64", (4, 30), -1, "float64"),
        case("float16", (4, 300), -1, "float16"),
        case("epsilon", (4, 30), -1, attrs={"epsilon": 0.5}),
        case("one_element", (5, 1), -1),
        case("several_blocks", (50, 1000), -1),
        case("empty", (0, 5), -1),
        case("large", (330, 301), -1, perf=True),
        # Large against its spread: a variance by E[x²] - E[x]² would be lost.
        OpCase("far_from_zero", (far, row, row) if bias else (far, row), rtol=2e-3, atol=2e-3),
        *(
            ()
            if not bias
            else (OpCase("without_bias", (f32(4, 30), f32(30)), rtol=1e-5, atol=1e-5),)
        ),
    )


def _doc(formula: str, bias: str, source: str) -> str:
    return f"""Compute ``{formula}`` over trailing axes.

    Parameters
    ----------
    x: any shape with at least one axis, float
    scale: shape of the axes of `x` from `axis` on, same dtype
{bias}    axis
        First of the axes that are normalised together.
    epsilon
        Added to the mean square, against division by 0.

    Returns
    -------
    Shape and dtype of `x`. float16 is computed in float32.

    Raises
    ------
    ShapeError
        If an axis is out of range, or shapes or dtypes do not fit.

    Notes
    -----
    Source: {source}
    """


OPS = (
    Op(
        name="layer_norm",
        kind="LayerNormalization",
        doc=_doc(
            "(x - mean) / sqrt(variance + epsilon) * scale + bias",
            "    bias: like `scale`, optional\n",
            "Ba, Kiros and Hinton, 2016, section 3.",
        ),
        n_inputs=(2, 3),
        attrs={"axis": -1, "epsilon": 1e-5},
        infer=_infer("layer_norm"),
        bind=_bind(True),
        reference=_reference(True),
        kernel=_kernel(True),
        inplace=(0,),
        scratch=_scratch,
        cost=_cost,
        dtypes=FLOATS,
        cases=_cases(bias=True),
    ),
    Op(
        name="rms_norm",
        kind="RMSNormalization",
        doc=_doc(
            "x / sqrt(mean of x² + epsilon) * scale", "", "Zhang and Sennrich, 2019, section 4."
        ),
        n_inputs=(2, 2),
        attrs={"axis": -1, "epsilon": 1e-5},
        infer=_infer("rms_norm"),
        bind=_bind(False),
        reference=_reference(False),
        kernel=_kernel(False),
        inplace=(0,),
        scratch=_scratch,
        cost=_cost,
        dtypes=FLOATS,
        cases=_cases(bias=False),
    ),
)
