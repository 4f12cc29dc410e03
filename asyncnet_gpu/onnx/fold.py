"""Run a node on known arrays while importing, with our own operators.

This is how shape arithmetic vanishes: every shape is known, so chains of Shape, Gather, Concat and
the like end in arrays, and only what depends on an input becomes a node of the net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.errors import NetError, message
from asyncnet_gpu.onnx.limits import Budget
from asyncnet_gpu.ops.base import REQUIRED, Op
from asyncnet_gpu.specs import TensorSpec

Array = np.ndarray[Any, Any]


def full_attrs(op: Op, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return all attributes of a node or raise `NetError` as the net would."""
    full = {**op.attrs, **attrs}
    missing = [key for key, value in full.items() if value is REQUIRED]
    unknown = sorted(set(attrs) - set(op.attrs))
    if missing or unknown:
        raise NetError(
            message(op.name, "attributes", expected=", ".join(op.attrs) or "none",
                    got=f"missing {missing}, unknown {unknown}", remedy="Correct them.")
        )  # fmt: skip
    return full


def evaluate(
    op: Op, arrays: Sequence[Array], attrs: Mapping[str, Any], budget: Budget, where: str
) -> tuple[Array, ...] | None:
    """Return the results of an operator on arrays, or None when they are for later.

    Later means: too large or too much work for an import, random, or with an effect.

    Raises
    ------
    ShapeError, NetError
        If the operator does not take these arrays.
    OnnxImportError
        If a result would be over a limit.
    """
    if op.effect or op.mutates or not op.deterministic:
        return None
    full = full_attrs(op, attrs)
    ins = tuple([TensorSpec(a.shape, a.dtype) for a in arrays])
    op.check_inputs(ins)
    outs = op.infer(ins, full)
    limits = budget.limits
    nbytes = sum(budget.tensor(s.shape, s.dtype.itemsize, where) for s in outs)
    if nbytes > limits.max_fold_bytes or op.cost(ins, outs, full).flops > limits.max_fold_flops:
        return None
    budget.constant(nbytes, where)
    views = _views(op, arrays, full)
    return _compute(op, arrays, ins, outs, full) if views is None else views


def _views(op: Op, arrays: Sequence[Array], attrs: dict[str, Any]) -> tuple[Array, ...] | None:
    if op.view is None:
        return None
    try:
        made = op.view(arrays[0], attrs)
    except ValueError:
        return None
    return made if isinstance(made, tuple) else (made,)


def _compute(
    op: Op, arrays: Sequence[Array], ins: tuple[TensorSpec, ...], outs: tuple[TensorSpec, ...],
    attrs: dict[str, Any],
) -> tuple[Array, ...]:  # fmt: skip
    scratch = [np.empty(s.shape, s.dtype) for s in op.scratch(ins, outs, attrs, "cpu")]
    results = tuple([np.empty(s.shape, s.dtype) for s in outs])
    # A constant division by zero is the model's business: it gives what IEEE 754 says.
    with np.errstate(all="ignore"):
        op.bind(np, list(arrays), list(results), attrs, scratch)()
    return results
