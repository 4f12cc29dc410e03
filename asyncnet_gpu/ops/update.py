"""Operators that update a parameter in place: the plan orders them like any write of its bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.errors import ShapeError, message
from asyncnet_gpu.ops.base import (
    ANY,
    FLOATS,
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
    same_dtype,
)
from asyncnet_gpu.ops.blocks import Step, number, working_dtype
from asyncnet_gpu.ops.elementwise_kernel import (
    CUDA_TYPES,
    binary_launch,
    compute_scalar,
    unary_launch,
)
from asyncnet_gpu.ops.strided import THREADS, grid_for, launch_all
from asyncnet_gpu.ops.ufunc import wide
from asyncnet_gpu.specs import TensorSpec, broadcast, spec


def _infer(name: str) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        same_dtype(ins, where=name)
        for value in ins[1:]:
            if broadcast([ins[0].shape, value.shape], where=name) != ins[0].shape:
                raise ShapeError(
                    message(
                        name, "the value does not fit the parameter",
                        expected=f"a shape that broadcasts to {ins[0].shape}", got=value.shape,
                        remedy="Reshape or reduce it first.",
                    )
                )  # fmt: skip
        return (ins[0],)

    return infer


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    moved = sum(s.nbytes for s in ins) + outs[0].nbytes
    return Cost(flops=float(ins[0].size), bytes=float(moved))


def _bind_assign(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return partial(xp.copyto, outs[0], ins[1])


def _bind_ufunc(function: str) -> Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]:
    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        return partial(getattr(xp, function), ins[0], ins[1], out=outs[0])

    return bind


def _kernel(function: str) -> Callable[..., Sequence[KernelLaunch] | None]:
    def kernel(
        ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        if function == "Same":
            return unary_launch("Same", ins[1], outs[0])
        return binary_launch(function, ins[0], ins[1], outs[0])

    return kernel


def _update(
    name: str, kind: str, formula: str, bind: Callable[..., Launch], function: str,
    reference: Callable[[Any, Any], Any], dtypes: frozenset[str],
) -> Op:  # fmt: skip
    typed = [
        OpCase(f"plain_{d}", (spec((3, 4), d),) * 2, rtol=0 if d[0] in "iub" else 1e-3)
        for d in ("float64", "float16", "int64", "bool")
        if d in dtypes
    ]
    return Op(
        name=name,
        kind=kind,
        doc=f"""Update a parameter in place: ``{formula}``.

    Parameters
    ----------
    w: any shape, a parameter of the net
    x: broadcasts to the shape of `w`, same dtype

    Returns
    -------
    The parameter itself; whoever reads it afterwards sees the new value, in later runs too.

    Raises
    ------
    ShapeError
        If `x` does not broadcast to `w` or dtypes differ.
    """,
        n_inputs=(2, 2),
        infer=_infer(name),
        bind=bind,
        kernel=_kernel(function),
        reference=lambda ins, attrs: (
            np.broadcast_to(reference(wide(ins[0]), wide(ins[1])), np.shape(ins[0])),
        ),
        mutates=(0,),
        cost=_cost,
        cases=(
            OpCase("plain", (f32(3, 4), f32(3, 4))),
            *typed,
            OpCase("row", (f32(3, 4), f32(4))),
            OpCase("number", (f32(3, 4), f32())),
            OpCase("scalar", (f32(), f32())),
            OpCase("empty", (f32(0, 3), f32(3))),
            OpCase("large", (f32(330, 301), f32(330, 301)), perf=True),
        ),
        dtypes=dtypes,
    )


def _infer_sgd(ins: Specs, attrs: Attrs) -> Specs:
    same_dtype(ins, where="sgd_update")
    w, gradient, rate = ins
    for role, given, wanted in (("gradient", gradient.shape, w.shape), ("rate", rate.shape, ())):
        if given != wanted:
            raise ShapeError(
                message(
                    "sgd_update", f"shape of the {role}", expected=wanted, got=given,
                    remedy="Reshape or reduce it first.",
                )
            )  # fmt: skip
    return (w,)


def _scratch_sgd(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    return (TensorSpec(ins[0].shape, working_dtype(ins[0].dtype)),) if device_kind == "cpu" else ()


def _bind_sgd(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    w, gradient, rate = ins
    work = scratch[0] if scratch else xp.empty(w.shape, working_dtype(w.dtype))
    steps: list[Step] = []
    if attrs["weight_decay"]:
        decay = number(xp, attrs["weight_decay"], work)
        steps.append(partial(xp.multiply, w, decay, out=work))
        steps.append(partial(xp.add, work, gradient, out=work))
        steps.append(partial(xp.multiply, work, rate, out=work))
    else:
        steps.append(partial(xp.multiply, gradient, rate, out=work, dtype=work.dtype))
    steps.append(partial(xp.subtract, w, work, out=outs[0], casting="same_kind"))
    return launch_all(steps)


def _kernel_sgd(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    w, gradient, rate = ins
    if not gradient.flags.c_contiguous:
        return None
    if not w.size:
        return ()
    decay = compute_scalar(attrs["weight_decay"], w.dtype)
    return (
        KernelLaunch(
            "update.cu", f"sgd<{CUDA_TYPES[w.dtype.name]}>", grid_for(w.size), (THREADS, 1, 1),
            (outs[0], gradient, rate, np.int64(w.size), decay),
        ),
    )  # fmt: skip


def _reference_sgd(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    w, gradient, rate = (wide(array) for array in ins)
    return (w - rate * (gradient + attrs["weight_decay"] * w),)


_SGD = Op(
    name="sgd_update",
    kind="SgdUpdate",
    doc="""Take a step of gradient descent in place: ``w = w - rate * (g + weight_decay * w)``.

    Parameters
    ----------
    w: any shape, float, a parameter of the net
    g: same shape and dtype
    rate: () same dtype; a blob, so that a schedule needs no new plan
    weight_decay
        Weight of the L2 penalty.

    Returns
    -------
    The parameter itself.

    Raises
    ------
    ShapeError
        If shapes or dtypes do not fit.
    """,
    n_inputs=(3, 3),
    attrs={"weight_decay": 0.0},
    infer=_infer_sgd,
    bind=_bind_sgd,
    kernel=_kernel_sgd,
    reference=_reference_sgd,
    mutates=(0,),
    scratch=_scratch_sgd,
    cost=lambda ins, outs, attrs: Cost(4.0 * ins[0].size, float(3 * ins[0].nbytes)),
    dtypes=FLOATS,
    cases=(
        OpCase("plain", (f32(5, 7), f32(5, 7), f32())),
        OpCase("decay", (f32(5, 7), f32(5, 7), f32()), {"weight_decay": 0.1}),
        OpCase("float64", (spec((5,), "float64"),) * 2 + (spec((), "float64"),)),
        OpCase(
            "float16", (spec((5,), "float16"),) * 2 + (spec((), "float16"),), rtol=2e-3, atol=2e-3
        ),
        OpCase("empty", (f32(0, 3), f32(0, 3), f32())),
        OpCase("large", (f32(330, 301), f32(330, 301), f32()), perf=True),
    ),
)

OPS = (
    _update("assign", "Assign", "w = x", _bind_assign, "Same", lambda w, x: x, ANY),
    _update("assign_add", "AssignAdd", "w = w + x", _bind_ufunc("add"), "Add",
            lambda w, x: w + x, NUMBERS),
    _update("assign_sub", "AssignSub", "w = w - x", _bind_ufunc("subtract"), "Sub",
            lambda w, x: w - x, NUMBERS),
    _SGD,
)  # fmt: skip
