"""Which operators have kernels on CUDA, and that a node of theirs is one launch: on any machine.

`Op.kernel` returns launches as data and looks at nothing but shapes and strides, so NumPy's arrays
do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncnet_gpu import ops
from asyncnet_gpu.ops.base import KernelLaunch, Op, OpCase
from asyncnet_gpu.specs import spec
from tests.conformance.test_ops import inputs_of

#: More axes than a kernel takes, and none that can be merged: CuPy's function runs.
TOO_MANY_AXES = "nine_axes"

ONE_LAUNCH = (
    "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "shift_left", "shift_right",
    "bit_cast", "mod", "fmod", "triangle", "encode_float", "decode_float", "random_uniform",
    "random_normal",
)  # fmt: skip
#: Split into parts where a reduction is long: these cases take a second launch.
IN_PARTS = {"parts", "parts_of_columns"}
REDUCING = (
    "global_max_pool", "global_average_pool", "reduce_sum", "reduce_mean", "reduce_prod",
    "reduce_max", "reduce_min", "reduce_l1", "reduce_l2", "reduce_sum_square", "reduce_log_sum",
    "reduce_log_sum_exp",
)  # fmt: skip


def bound(op: Op, case: OpCase) -> tuple[list[KernelLaunch] | None, int]:
    """Return the launches of a case and the number of its results' elements."""
    attrs = op.attrs | dict(case.attrs)
    ins = inputs_of(op, case)
    specs = tuple([spec(a.shape, a.dtype) for a in ins])
    made = op.infer(specs, attrs)
    scratch = op.scratch(specs, made, attrs, "cuda")
    outs, room = ([np.empty(s.shape, s.dtype) for s in some] for some in (made, scratch))
    assert op.kernel is not None
    launches = op.kernel(ins, outs, attrs, room)
    return None if launches is None else list(launches), sum(out.size for out in outs)


def cases_of(*names: str) -> list[Any]:
    return [
        pytest.param(op, case, id=f"{op.name}-{case.name}")
        for op in (ops.registry()[name] for name in names)
        for case in op.cases
    ]


@pytest.mark.parametrize(("op", "case"), cases_of(*ONE_LAUNCH))
def test_a_node_is_one_launch(op: Op, case: OpCase) -> None:
    launches, size = bound(op, case)
    if case.name == TOO_MANY_AXES and op.n_inputs == (2, 2):
        assert launches is None
    else:
        assert launches is not None
        assert len(launches) == (size > 0)


@pytest.mark.parametrize(("op", "case"), cases_of(*REDUCING))
def test_a_reduction_is_one_launch_and_one_for_its_parts(op: Op, case: OpCase) -> None:
    launches, size = bound(op, case)
    assert launches is not None
    parts = case.name in IN_PARTS and op.name != "reduce_log_sum_exp"
    assert len(launches) == (2 if parts else size > 0)
