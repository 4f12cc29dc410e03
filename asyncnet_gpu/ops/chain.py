"""Several elementwise operators as one, carried out block by block so that they stay in cache.

A net adds, scales and clips in nodes of their own, and each is a pass over memory. A chain is what
a pass makes of such nodes (`asyncnet_gpu.passes.chains`): a block of every operand goes through all
members before the next block, and what lies between members is never more than a block. Each member
is bound by its own operator, so that a chain computes what its members do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Attrs, Cost, Launch, Op, Specs
from asyncnet_gpu.ops.blocks import BLOCK
from asyncnet_gpu.ops.strided import launch_all
from asyncnet_gpu.specs import TensorSpec

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Member:
    """One operator of a chain.

    Attributes
    ----------
    op, attrs
        As in the node that it was.
    reads
        Operands: an input of the chain, or behind these an earlier member.
    dtype
        Of its result, whose shape is the chain's.
    """

    op: Op
    attrs: Attrs
    reads: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the common shape is cut: everything behind `axis` whole, `extent` of `axis` at a time."""

    shape: tuple[int, ...]
    axis: int
    extent: int

    @property
    def block(self) -> tuple[int, ...]:
        """Shape of the largest block."""
        return (self.extent, *self.shape[self.axis + 1 :])

    def places(self) -> Iterator[tuple[int | slice, ...]]:
        """Yield the index of each block, in order."""
        end = self.shape[self.axis]
        for outer in itertools.product(*map(range, self.shape[: self.axis])):
            for first in range(0, end, self.extent):
                yield (*outer, slice(first, min(first + self.extent, end)))


def _cut(shape: tuple[int, ...]) -> _Cut:
    axis, inner = 0, math.prod(shape[1:])
    while inner > BLOCK:
        axis += 1
        inner = math.prod(shape[axis + 1 :])
    n_blocks = -(-shape[axis] * inner // BLOCK)
    return _Cut(shape, axis, -(-shape[axis] // n_blocks))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where members of a chain write: the slot of each but the last, and bytes of everything."""

    slots: tuple[int, ...]
    slot_bytes: int
    n_slots: int
    member_bytes: int

    @property
    def nbytes(self) -> int:
        return self.n_slots * self.slot_bytes + self.member_bytes


def _may_overwrite(member: Member, operand: int, dtype: np.dtype[Any]) -> bool:
    places = [i for i, read in enumerate(member.reads) if read == operand]
    return dtype == member.dtype and all(i in member.op.inplace for i in places)


def _slots(members: Sequence[Member], n_inputs: int) -> tuple[int, ...]:
    """Give each member but the last a slot; one whose value nobody needs any more is used again."""
    last_use = {read: i for i, m in enumerate(members) for read in m.reads}
    free: list[int] = []
    taken: dict[int, int] = {}
    n_slots = 0
    for i, member in enumerate(members[:-1]):
        dying = {r for r in member.reads if r >= n_inputs and last_use[r] == i}
        own = [
            r for r in sorted(dying) if _may_overwrite(member, r, members[r - n_inputs].dtype)
        ][:1]  # fmt: skip
        if own:
            slot = taken[own[0]]
        elif free:
            slot = free.pop()
        else:
            slot, n_slots = n_slots, n_slots + 1
        free += [taken[r] for r in sorted(dying) if r not in own]
        taken[n_inputs + i] = slot
    return tuple([taken[n_inputs + i] for i in range(len(members) - 1)])


def _member_specs(member: Member, ins: Specs, members: Sequence[Member], cut: _Cut) -> Specs:
    """Temporaries of a member for the largest block."""
    whole = [
        TensorSpec(_block_shape(ins[r].shape, cut), ins[r].dtype)
        if r < len(ins)
        else TensorSpec(cut.block, members[r - len(ins)].dtype)
        for r in member.reads
    ]
    return member.op.scratch(
        tuple(whole), (TensorSpec(cut.block, member.dtype),), member.attrs, "cpu"
    )


def _block_shape(shape: tuple[int, ...], cut: _Cut) -> tuple[int, ...]:
    return () if math.prod(shape) == 1 else cut.block


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _layout(members: Sequence[Member], ins: Specs, cut: _Cut) -> _Layout:
    slots = _slots(members, len(ins))
    widest = max(m.dtype.itemsize for m in members)
    needed = [sum(_aligned(s.nbytes) for s in _member_specs(m, ins, members, cut)) for m in members]
    return _Layout(
        slots, _aligned(math.prod(cut.block) * widest), 1 + max(slots, default=-1), max(needed)
    )


def _scratch(members: Sequence[Member], ins: Specs, outs: Specs) -> Specs:
    layout = _layout(members, ins, _cut(outs[0].shape))
    return (TensorSpec((layout.nbytes,), np.dtype(np.uint8)),)


def _specs(arrays: Arrays) -> Specs:
    return tuple([TensorSpec(a.shape, a.dtype) for a in arrays])


def _carve(buffer: Any, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    return buffer[start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


def _bind(
    members: Sequence[Member], xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Launch:
    (out,) = outs
    specs = _specs(ins)
    cut = _cut(out.shape)
    layout = _layout(members, specs, cut)
    buffer = scratch[0] if scratch else xp.empty(layout.nbytes, np.uint8)
    # A single number stays one; everything else is seen with the shape of the output.
    operands = [a.reshape(()) if a.size == 1 else xp.broadcast_to(a, out.shape) for a in ins]
    steps: list[Launch] = []
    for place in cut.places():
        goal = out[place]
        values = [a if not a.ndim else a[place] for a in operands]
        for i, member in enumerate(members):
            target = goal
            if i < len(layout.slots):
                start = layout.slots[i] * layout.slot_bytes
                target = _carve(buffer, start, goal.shape, member.dtype)
            own, start = [], layout.n_slots * layout.slot_bytes
            for spec in _member_specs(member, specs, members, cut):
                own.append(_carve(buffer, start, spec.shape, spec.dtype))
                start += _aligned(spec.nbytes)
            if target.shape != cut.block:
                own = [_shortened(a, cut.block, target.shape) for a in own]
            reads = [values[r] for r in member.reads]
            steps.append(member.op.bind(xp, reads, [target], member.attrs, own))
            values.append(target)
    return launch_all(steps)


def _shortened(array: Any, block: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """Cut a temporary of the shape of a block down to a smaller last block."""
    return array[: shape[0]] if array.shape == block else array


def _reference(members: Sequence[Member], ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    values = list(ins)
    for member in members:
        (value,) = member.op.reference([values[r] for r in member.reads], member.attrs)
        values.append(value)
    return (values[-1],)


def _cost(members: Sequence[Member], ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    """Arithmetic of all members, traffic of the chain's own inputs and output."""
    flops = 0.0
    for member in members:
        reads = tuple(
            [ins[r] if r < len(ins) else TensorSpec(outs[0].shape, outs[0].dtype)
             for r in member.reads]
        )  # fmt: skip
        made = (TensorSpec(outs[0].shape, member.dtype),)
        flops += member.op.cost(reads, made, member.attrs).flops
    moved = sum(s.nbytes for s in ins) + outs[0].nbytes
    return Cost(flops, float(moved))


def make_chain(members: Sequence[Member], ins: Specs, out: TensorSpec) -> Op:
    """Return the operator that carries out `members` in order; the last one makes the output."""
    last = members[-1]
    inplace = [
        i
        for i, spec in enumerate(ins)
        if spec.shape == out.shape
        and spec.dtype == out.dtype
        and (i not in last.reads or _may_overwrite(last, i, spec.dtype))
    ]
    return Op(
        name="chain",
        kind="Chain",
        doc=" ".join(member.op.kind for member in members),
        n_inputs=(len(ins), len(ins)),
        infer=lambda ins, attrs: (out,),
        bind=partial(_bind, members),
        reference=partial(_reference, members),
        inplace=tuple(inplace),
        scratch=lambda ins, outs, attrs, kind: _scratch(members, ins, outs),
        cost=partial(_cost, members),
    )
