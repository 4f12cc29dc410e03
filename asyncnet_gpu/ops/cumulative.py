"""Running sums and products along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import NUMBERS, REQUIRED, Arrays, Attrs, Launch, Op, OpCase, Specs, f32
from asyncnet_gpu.specs import normal_axis, spec


def _along(array: Any, axis: int, part: slice) -> Any:
    return array[(slice(None),) * axis + (part,)]


def _define(name: str, kind: str, word: str, neutral: int) -> Op:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        normal_axis(attrs["axis"], ins[0].ndim, where=name)
        return (ins[0],)

    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        x, out = ins[0], outs[0]
        axis = attrs["axis"] % x.ndim
        accumulate = xp.cumsum if word == "sum" else xp.cumprod
        first = None
        if attrs["reverse"]:
            x, out = xp.flip(x, axis), xp.flip(out, axis)
        if attrs["exclusive"]:
            first = _along(out, axis, slice(0, 1))
            x, out = _along(x, axis, slice(0, -1)), _along(out, axis, slice(1, None))

        def launch() -> None:
            if first is not None:
                first[...] = neutral
            if out.size:
                accumulate(x, axis, dtype=out.dtype, out=out)

        return launch

    def reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
        x = np.moveaxis(np.asarray(ins[0]), attrs["axis"], 0)
        wide = np.float64 if x.dtype.kind == "f" else x.dtype
        out = np.empty(x.shape, wide)
        order = range(len(x))[:: -1 if attrs["reverse"] else 1]
        total = np.full(x.shape[1:], neutral, wide)
        for i in order:
            with_this = total + x[i] if word == "sum" else total * x[i]
            out[i] = total if attrs["exclusive"] else with_this
            total = with_this
        return (np.moveaxis(out, 0, attrs["axis"]),)

    return Op(
        name=name, kind=kind, n_inputs=(1, 1), infer=infer, bind=bind, reference=reference,
        doc=f"""Compute the running {word} along an axis.

        Parameters
        ----------
        x: any shape with at least one axis, numbers
        axis
            Along which.
        exclusive
            Leave the element itself out: the first one is {neutral}.
        reverse
            Begin at the end.
        """,
        attrs={"axis": REQUIRED, "exclusive": False, "reverse": False}, dtypes=NUMBERS,
        cases=(
            OpCase("rows", (f32(3, 5),), {"axis": 1}),
            OpCase("exclusive", (f32(3, 5),), {"axis": -2, "exclusive": True}),
            OpCase("reverse", (spec((2, 3, 4), "int64"),), {"axis": 1, "reverse": True}),
            OpCase("both", (f32(6),), {"axis": 0, "exclusive": True, "reverse": True}),
            OpCase("empty", (f32(0, 3),), {"axis": 0, "exclusive": True}),
        ),
    )  # fmt: skip


OPS = (
    _define("cumsum", "CumSum", "sum", 0),
    _define("cumprod", "CumProd", "product", 1),
)
