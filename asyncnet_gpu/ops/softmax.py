"""Softmax and its logarithm along one axis: exp(x - max) / sum(exp(x - max))."""

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
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.ops.blocks import Step
from asyncnet_gpu.ops.checks import as_int
from asyncnet_gpu.ops.elementwise_kernel import (
    CUDA_TYPES,
    element_strides,
    merged,
    pack_layout,
)
from asyncnet_gpu.ops.reduction_kernel import threads_for
from asyncnet_gpu.ops.reductions import reduce_step
from asyncnet_gpu.ops.rows import bind_rows, row_scratch
from asyncnet_gpu.specs import normal_axis, spec


def _infer(name: str) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        normal_axis(as_int(attrs["axis"], "axis", where=name), ins[0].ndim, where=name)
        return (ins[0],)

    return infer


def _split(shape: tuple[int, ...], attrs: Attrs) -> tuple[int, int, int]:
    """Return the extents before the axis, of it and behind it."""
    axis = attrs["axis"] % len(shape)
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _scratch(is_log: bool) -> Callable[[Specs, Specs, Attrs, str], Specs]:
    def scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
        if device_kind != "cpu":
            return ()
        rows, _, inner = _split(ins[0].shape, attrs)
        return row_scratch(ins[0], rows, [inner], int(is_log))

    return scratch


def _bind(is_log: bool) -> Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]:
    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        x, out = ins[0], outs[0]
        rows, n, inner = _split(x.shape, attrs)
        if xp is not np:  # only where the kernel cannot: temporaries of its own
            wanted = row_scratch(spec(x.shape, x.dtype), rows, [inner], int(is_log))
            scratch = [xp.empty(s.shape, s.dtype) for s in wanted]

        def formula(a: Any, y: Any, blocks: Sequence[Any], sums: Sequence[Any]) -> list[Step]:
            top = sums[0]
            flat = top.reshape(top.shape[0], inner)
            powers = blocks[0] if is_log else y
            steps: list[Step] = [
                reduce_step(xp, "maximum", a, (1,), flat),
                partial(xp.subtract, a, top, out=y),
                partial(xp.exp, y, out=powers),
                reduce_step(xp, "add", powers, (1,), flat),
            ]
            if not is_log:
                return [*steps, partial(xp.true_divide, y, top, out=y)]
            steps.append(partial(xp.log, top, out=top))
            return [*steps, partial(xp.subtract, y, top, out=y)]

        return bind_rows(xp, formula, x, out, rows, (n, inner), [(1, inner)], scratch)

    return bind


def _kernel(is_log: bool) -> Callable[..., Sequence[KernelLaunch] | None]:
    def kernel(
        ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        x, out = ins[0], outs[0]
        if not out.size:
            return ()
        axis = attrs["axis"] % x.ndim
        strides = [element_strides(array, x.shape) for array in (x, out)]
        made = []
        for axes in ([a for a in range(x.ndim) if a != axis], [axis]):
            shape = [x.shape[a] for a in axes]
            left = merged(shape, [[s[a] for a in axes] for s in strides])
            made.append(pack_layout(math.prod(shape), left))
        kept, reduced = made
        if kept is None or reduced is None:
            return None
        length = x.shape[axis]
        entry = f"softmax<{CUDA_TYPES[x.dtype.name]}, {str(is_log).lower()}>"
        grid, block = (x.size // length, 1, 1), (threads_for(length), 1, 1)
        return (KernelLaunch("softmax.cu", entry, grid, block, (x, out, kept, reduced)),)

    return kernel


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x = np.asarray(ins[0], np.float64)
    if not x.size:
        return (x,)
    powers = np.exp(x - x.max(attrs["axis"], keepdims=True))
    return (powers / powers.sum(attrs["axis"], keepdims=True),)


def _reference_log(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x = np.asarray(ins[0], np.float64)
    if not x.size:
        return (x,)
    shifted = x - x.max(attrs["axis"], keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(attrs["axis"], keepdims=True)),)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(flops=22.0 * ins[0].size, bytes=3.0 * ins[0].nbytes)


_FAR = np.array([[1000, 1001, 999], [-1000, -1001, -999], [0, -200, 90]], np.float32)
_BROKEN = np.array([[np.nan, 1, 2], [np.inf, 1, 2], [-np.inf, 1, 2]], np.float32)

_CASES = (
    OpCase("rows", (f32(6, 10),), {"axis": -1}),
    OpCase("middle", (f32(3, 4, 5),), {"axis": 1}),
    OpCase("first", (f32(7, 40),), {"axis": 0}),
    OpCase("vector", (f32(300),)),
    OpCase("one_element", (f32(4, 1),)),
    OpCase("float64", (spec((4, 9), "float64"),), {"axis": 1}, rtol=1e-12, atol=1e-13),
    OpCase("float16", (spec((4, 90), "float16"),), rtol=1e-3, atol=1e-3),
    OpCase("float16_middle", (spec((3, 9, 2), "float16"),), {"axis": 1}, rtol=1e-3, atol=1e-3),
    OpCase("far_apart", (_FAR,)),
    OpCase("not_numbers", (_BROKEN,)),
    OpCase("empty", (f32(0, 4),), {"axis": -1}),
    OpCase("empty_axis", (f32(4, 0),), {"axis": -1}),
    OpCase("several_blocks", (f32(50, 1000),), {"axis": -1}),
    OpCase("large", (f32(330, 301),), perf=True),
)


def _definition(
    name: str, kind: str, formula: str, reference: Callable[..., Any], *, is_log: bool
) -> Op:
    return Op(
        name=name,
        kind=kind,
        doc=f"""Compute ``{formula}`` along an axis.

    Parameters
    ----------
    x: any shape with at least one axis, float
    axis
        Axis to sum over; the last by default.

    Returns
    -------
    Same shape and dtype. Shifted by the maximum, so that nothing overflows; float16 is computed in
    float32.

    Raises
    ------
    ShapeError
        If the axis is out of range.
    """,
        n_inputs=(1, 1),
        attrs={"axis": -1},
        infer=_infer(name),
        bind=_bind(is_log),
        reference=reference,
        kernel=_kernel(is_log),
        inplace=(0,),
        scratch=_scratch(is_log),
        cost=_cost,
        cases=_CASES,
        dtypes=FLOATS,
        onnx={kind: OnnxMapping(since=13)},
    )


OPS = (
    _definition("softmax", "Softmax", "exp(x) / sum(exp(x))", _reference, is_log=False),
    _definition("log_softmax", "LogSoftmax", "log(softmax(x))", _reference_log, is_log=True),
)
