"""Nodes that order without computing; their blobs pass through in place."""

from __future__ import annotations

from typing import Any

from asyncnet_gpu.ops.base import Arrays, Attrs, Cost, Launch, Op, Specs


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    return ins


def _nothing() -> None:
    """The launch of a barrier: all its effect is its place in the order."""


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return _nothing


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    return tuple(ins)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(flops=0.0, bytes=0.0)


def _definition(name: str, kind: str, doc: str) -> Op:
    return Op(
        name=name,
        kind=kind,
        doc=doc,
        n_inputs=(0, None),
        infer=_infer,
        bind=_bind,
        reference=_reference,
        cost=_cost,
        effect=True,
    )


OPS = (
    _definition("async_barrier", "AsyncBarrier", "Order the blobs of one device."),
    _definition("async_net_barrier", "AsyncNetBarrier", "Order across devices or the whole net."),
)

#: Names of the operators that order without computing.
BARRIERS = frozenset(op.name for op in OPS)
