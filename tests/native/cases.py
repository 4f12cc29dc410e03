"""The conformance cases of all operators, bound to memory of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from asyncnet_gpu import ops
from asyncnet_gpu.ops.base import Launch, Op, OpCase
from asyncnet_gpu.specs import TensorSpec
from tests.conformance.test_ops import inputs_of
from tests.native.arrays import Array

OPERATORS = [op for op in ops.registry().values() if op.cases]


@dataclass
class Bound:
    """A launch and its memory; another of the same case has the same numbers at other addresses."""

    launch: Launch
    inputs: list[Array]
    outputs: list[Array]
    scratch: list[Array]


def bound(op: Op, case: OpCase) -> Bound:
    inputs = [np.array(value) for value in inputs_of(op, case)]  # one of them may be a number
    attrs = {**op.attrs, **case.attrs}
    specs = tuple([TensorSpec(a.shape, a.dtype) for a in inputs])
    made = op.infer(specs, attrs)
    outputs = [inputs[i] for i in op.mutates] or [np.zeros(s.shape, s.dtype) for s in made]
    wanted = op.scratch(specs, made, attrs, "cpu")
    scratch = [np.full(s.shape, 7, s.dtype) for s in wanted]
    launch = op.bind(np, inputs, outputs, attrs, scratch)
    return Bound(launch, inputs, outputs, scratch)


def cases(op: Op) -> Iterator[OpCase]:
    return (case for case in op.cases if "cpu" in case.backends)
