"""Copies that the planner inserts where a blob is read on another device than its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Attrs, Launch, Op, OpCase, Specs, f32


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    return (ins[0],)


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return partial(xp.copyto, outs[0], ins[0])


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    return (np.array(ins[0]),)


COPY = Op(
    name="copy",
    kind="Copy",
    doc="""Copy a blob into a buffer of its own.

    Parameters
    ----------
    x: any shape, any dtype

    Returns
    -------
    Same shape and dtype, contiguous.
    """,
    n_inputs=(1, 1),
    infer=_infer,
    bind=_bind,
    reference=_reference,
    cases=(OpCase("plain", (f32(4, 5),), rtol=0, atol=0),),
)

OPS = (COPY,)
