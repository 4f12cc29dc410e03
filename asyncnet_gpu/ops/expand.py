"""Repeat a blob along axes of extent 1, as a view: expand and broadcast_to."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import REQUIRED, Arrays, Attrs, OpCase, Specs, f32
from asyncnet_gpu.ops.checks import as_ints, fail
from asyncnet_gpu.ops.viewing import repeated_view, reshaped, view_op
from asyncnet_gpu.specs import broadcast, spec


def _infer_broadcast_to(ins: Specs, attrs: Attrs) -> Specs:
    shape = as_ints(attrs["shape"], "shape", where="broadcast_to")
    common = broadcast([ins[0].shape, shape], where="broadcast_to")
    if common != shape:
        fail("broadcast_to", f"shape={shape}", expected="the shape of the result", got=common,
             remedy="Use expand when the shape itself is to broadcast.")  # fmt: skip
    return reshaped(ins, shape)


def _infer_expand(ins: Specs, attrs: Attrs) -> Specs:
    wanted = spec(as_ints(attrs["shape"], "shape", where="expand"), ins[0].dtype, where="expand")
    return reshaped(ins, broadcast([ins[0].shape, wanted.shape], where="expand"))


def _view_broadcast(array: Any, attrs: Attrs) -> Any:
    wanted = as_ints(attrs["shape"], "shape", where="expand")
    return repeated_view(array, broadcast([array.shape, wanted], where="expand"))


def _reference_broadcast(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    (x,) = ins
    out = np.empty(np.broadcast_shapes(x.shape, tuple(attrs["shape"])), x.dtype)
    for place in np.ndindex(out.shape):
        tail = place[len(place) - x.ndim :]
        out[place] = x[tuple([0 if e == 1 else i for e, i in zip(x.shape, tail, strict=True)])]
    return (out,)


_INT = spec((2, 3, 4), "int64")

OPS = (
    view_op(
        _view_broadcast,
        name="broadcast_to",
        kind="BroadcastTo",
        doc="""Repeat axes of extent 1 until the blob has `shape`; a view with strides of 0.

        Parameters
        ----------
        x: any shape, any dtype
        shape
            Of the result.
        """,
        attrs={"shape": REQUIRED},
        infer=_infer_broadcast_to,
        reference=_reference_broadcast,
        cases=(
            OpCase("row", (f32(3),), {"shape": (2, 3)}, rtol=0, atol=0),
            OpCase("column", (f32(3, 1),), {"shape": (2, 3, 4)}, rtol=0, atol=0),
            OpCase("scalar", (f32(),), {"shape": (2, 2)}, rtol=0, atol=0),
        ),
    ),
    view_op(
        _view_broadcast,
        name="expand",
        kind="Expand",
        doc="""Broadcast the blob and `shape` against each other; a view with strides of 0.

        Parameters
        ----------
        x: any shape, any dtype
        shape
            May itself have extents of 1 where `x` has more.
        """,
        attrs={"shape": REQUIRED},
        infer=_infer_expand,
        reference=_reference_broadcast,
        cases=(
            OpCase("both_ways", (f32(3, 1),), {"shape": (2, 1, 4)}, rtol=0, atol=0),
            OpCase("fewer_axes", (_INT,), {"shape": (1, 1)}, rtol=0, atol=0),
        ),
    ),
)  # fmt: skip
