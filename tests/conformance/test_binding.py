"""No operator reads its inputs when it is bound: what they hold comes with the run."""

from __future__ import annotations

import numpy as np
import pytest

from asyncnet_gpu.ops.base import Op, OpCase
from asyncnet_gpu.specs import TensorSpec
from tests.conformance.test_ops import inputs_of
from tests.native.arrays import Array
from tests.native.cases import OPERATORS, cases


def laid_out(value: Array, strided: bool) -> Array:
    """Return memory for a value whose first axis is the innermost, or is as in C."""
    if not strided:
        return np.empty(value.shape, value.dtype)
    return np.empty(value.shape[::-1], value.dtype).T


def outputs(op: Op, case: OpCase, strided: bool, *, late: bool) -> list[Array]:
    """Bind and launch; the inputs are written before or, `late`, after binding."""
    values = [np.array(value) for value in inputs_of(op, case)]
    attrs = {**op.attrs, **case.attrs}
    specs = tuple([TensorSpec(value.shape, value.dtype) for value in values])
    made = op.infer(specs, attrs)
    ins = [laid_out(value, strided) for value in values]
    for array, value in zip(ins, values, strict=True):
        array[...] = np.ones((), array.dtype) if late else value
    outs = [ins[i] for i in op.mutates] or [np.zeros(s.shape, s.dtype) for s in made]
    wanted = op.scratch(specs, made, attrs, "cpu")
    launch = op.bind(np, ins, outs, attrs, [np.empty(s.shape, s.dtype) for s in wanted])
    for array, value in zip(ins, values, strict=True):
        array[...] = value
    with np.errstate(all="ignore"):
        launch()
    return outs


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_inputs_are_read_by_the_launch_alone(op: Op) -> None:
    for case in cases(op):
        for strided in (False,) if op.packed else (False, True):
            early, late = (outputs(op, case, strided, late=late) for late in (False, True))
            for a, b in zip(early, late, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{op.name} {case.name} {strided}")
