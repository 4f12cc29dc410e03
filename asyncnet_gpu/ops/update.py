"""Operators that update a parameter in place: the plan orders them like any write of its bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.errors import ShapeError, message
from asyncnet_gpu.ops.base import NUMBERS, Arrays, Attrs, Launch, Op, OpCase, Specs, f32, same_dtype


def _infer(name: str) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        same_dtype(ins, where=name)
        if ins[0].shape != ins[1].shape:
            raise ShapeError(
                message(
                    name, "the value does not fit the parameter", expected=ins[0].shape,
                    got=ins[1].shape, remedy="Reshape or broadcast it first.",
                )
            )  # fmt: skip
        return (ins[0],)

    return infer


def _bind_assign(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return partial(xp.copyto, outs[0], ins[1])


def _bind_add(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return partial(xp.add, ins[0], ins[1], out=outs[0])


def _bind_sub(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return partial(xp.subtract, ins[0], ins[1], out=outs[0])


def _update(
    name: str, kind: str, formula: str, bind: Callable[..., Launch], reference: Callable[..., Any]
) -> Op:
    return Op(
        name=name,
        kind=kind,
        doc=f"""Update a parameter in place: ``{formula}``.

    Parameters
    ----------
    w: any shape, a parameter of the net
    x: same shape and dtype

    Returns
    -------
    The parameter itself; whoever reads it afterwards sees the new value, in later runs too.
    """,
        n_inputs=(2, 2),
        infer=_infer(name),
        bind=bind,
        reference=lambda ins, attrs: (reference(*ins),),
        mutates=(0,),
        cases=(OpCase("plain", (f32(3, 4), f32(3, 4))),),
        dtypes=NUMBERS,
    )


OPS = (
    _update("assign", "Assign", "w = x", _bind_assign, lambda w, x: np.array(x)),
    _update("assign_add", "AssignAdd", "w = w + x", _bind_add, lambda w, x: w + x),
    _update("assign_sub", "AssignSub", "w = w - x", _bind_sub, lambda w, x: w - x),
)
