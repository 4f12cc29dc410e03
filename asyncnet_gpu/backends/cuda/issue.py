"""The issue list: what the host calls, in order, to set a whole plan going.

Every entry is a call without arguments, made once. The loop over them does nothing else: which
step an entry belongs to is looked up only when one has failed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, final

from cupy.cuda import runtime

from asyncnet_gpu.backends.base import Execution, dependents
from asyncnet_gpu.backends.cuda.context import Stream
from asyncnet_gpu.backends.cuda.faults import explained
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.plan.types import Plan

Call = Callable[[], object]


class Kind(IntEnum):
    """What an entry does."""

    DEVICE = 0
    WAIT = 1
    RUN = 2
    RECORD = 3
    MARK = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """What an entry of the list means: its kind and the step it belongs to."""

    kind: Kind
    step: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Entries that one call does together, in order; all are launches on one stream."""

    entries: tuple[int, ...]
    call: Call


def skip() -> None:
    """Take the place of an entry that is not to run."""


@final
class IssueList:
    """A plan as a flat list of calls.

    Parameters
    ----------
    calls
        For each step what carries it out.
    events
        CUDA event of each event of the plan.
    barrier_events
        CUDA event of each barrier's node.
    on_barrier
        Called with the node once its event has been recorded.
    timed
        For each step a pair of timed events around it; None leaves them out.
    on_step
        Called on the host before each step is issued, and once more after the last one.
    """

    def __init__(
        self, plan: Plan, streams: Sequence[Stream], calls: Sequence[Sequence[Call]],
        events: Sequence[int], barrier_events: dict[int, int], on_barrier: Callable[[int], None],
        timed: Sequence[tuple[int, int]] | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.calls: list[Call] = []
        self.meaning: list[Entry] = []
        self.position: dict[int, int] = {}  # step -> its first RUN entry
        device = -1
        for index, step in enumerate(plan.steps):
            stream = streams[step.stream]
            if on_step is not None:
                self._add(Kind.MARK, index, partial(on_step, index))
            if stream.device != device:
                device = stream.device
                self._add(Kind.DEVICE, index, partial(runtime.setDevice, device))
            for event in step.waits:
                # RAW, WAR or WAW: the step that recorded the event touches bytes that this one
                # touches too, on another stream; the plan says which.
                self._add(
                    Kind.WAIT, index, partial(runtime.streamWaitEvent, stream.ptr, events[event])
                )
            if timed is not None:
                self._record(index, timed[index][0], stream)
            self.position[index] = len(self.calls)
            for call in calls[index]:
                self._add(Kind.RUN, index, call)
            if timed is not None:
                self._record(index, timed[index][1], stream)
            if step.records is not None:
                self._record(index, events[step.records], stream)
            if plan.graph.nodes[step.node].op.name in BARRIERS:
                self._record(index, barrier_events[step.node], stream)
                self._add(Kind.MARK, index, partial(on_barrier, step.node))
        if on_step is not None and plan.steps:
            self._add(Kind.MARK, len(plan.steps) - 1, partial(on_step, len(plan.steps)))
        self._master = list(self.calls)
        #: What `run` works off, and the entry behind each call of it: all, until `shorten`.
        self._short, self._order = self.calls, list(range(len(self.calls)))
        self._short_master = self._master
        self._members: dict[int, tuple[int, ...]] = {}  # first entry of a segment -> all of it
        self._done: set[int] = set()
        self._entries: Any = iter(())

    def __len__(self) -> int:
        """Return how many calls `run` makes."""
        return len(self._short)

    def _add(self, kind: Kind, step: int, call: Call) -> None:
        self.calls.append(call)
        self.meaning.append(Entry(kind, step))

    def _record(self, step: int, event: int, stream: Stream) -> None:
        self._add(Kind.RECORD, step, partial(runtime.eventRecord, event, stream.ptr))

    def shorten(self, segments: Sequence[Segment]) -> None:
        """Have `run` do segments by one call each, in the place of their first entries.

        The entries stay: when the call of a segment fails they are issued one by one.
        """
        first = {segment.entries[0]: segment for segment in segments}
        self._members = {position: segment.entries for position, segment in first.items()}
        inner = {position for segment in segments for position in segment.entries[1:]}
        self._order = [i for i in range(len(self.calls)) if i not in inner]
        self._short = [first[i].call if i in first else self.calls[i] for i in self._order]
        self._short_master = list(self._short)

    def replace(self, step: int, at: int, call: Call) -> None:
        """Put another call for the one that is number `at` of a step; it is in no segment."""
        position = self.position[step] + at
        self.calls[position] = self._master[position] = call
        if self._short is not self.calls:
            place = bisect_left(self._order, position)
            self._short[place] = self._short_master[place] = call

    def blank(self) -> None:
        """Make all that is left do nothing, also for the thread that is working it off.

        Events are left out together with those who wait for them.
        """
        self.calls[:] = [skip] * len(self.calls)
        self._short[:] = [skip] * len(self._short)

    def restore(self) -> None:
        """Undo `blank`."""
        self.calls[:] = self._master
        self._short[:] = self._short_master

    def drop(self) -> None:
        """Let go of everything that the calls hold."""
        self.calls, self._master = [], []
        self._short, self._short_master = [], []

    def run(self, execution: Execution) -> int | None:
        """Issue everything; returns None, or the position of the entry that raised.

        The error is noted in `execution`; `go_on` issues the rest.
        """
        entries: Any = iter(self._short)
        self._entries = entries
        try:
            for call in entries:
                call()
        except BaseException as error:
            # The iterator knows how many entries are left: no counter in the loop.
            place = len(self._short) - entries.__length_hint__() - 1
            return self._failed(execution, place, error)
        return None

    def _failed(self, execution: Execution, place: int, error: BaseException) -> int | None:
        position = self._order[place]
        earlier = self._order[:place]
        self._done = {i for first in earlier for i in self._members.get(first, ())}
        if position in self._members:
            # Nothing of a segment runs when its launch fails: one by one, the step to blame shows.
            self._issue_from(execution, position, set())
            return None
        self._note(execution, position, error)
        return position

    def _at(self) -> Entry | None:
        """Return the entry that the host has come to."""
        left: int = self._entries.__length_hint__()
        place = max(0, len(self._short) - left - 1)
        return self.meaning[self._order[place]] if self.meaning else None

    def host_step(self) -> int:
        """Return the step that the host has come to; its entry may still be under way."""
        entry = self._at()
        return 0 if entry is None else entry.step

    def host_runs(self) -> bool:
        """Whether the host is in a step's own call, not in one of the driver's."""
        entry = self._at()
        return entry is not None and entry.kind is Kind.RUN

    def _note(self, execution: Execution, position: int, error: BaseException) -> None:
        entry = self.meaning[position]
        device = self.plan.streams[self.plan.steps[entry.step].stream].device
        execution.fail(entry.step, explained(self.plan.device_name(device), error))

    def go_on(self, execution: Execution, position: int) -> None:
        """Issue what comes after a failed entry: all but the steps that need what it made.

        Where an event could not be recorded or waited for, nothing more is launched: the order of
        whatever follows would not be kept.
        """
        entry = self.meaning[position]
        if entry.kind in (Kind.WAIT, Kind.RECORD, Kind.DEVICE):
            return
        lost = {entry.step, *dependents(self.plan, entry.step)}
        self._issue_from(execution, position + 1, lost)

    def _issue_from(self, execution: Execution, position: int, lost: set[int]) -> None:
        """Issue the entries from a position on, without segments and without steps in `lost`."""
        for i in range(position, len(self.calls)):
            entry = self.meaning[i]
            if i in self._done or (entry.step in lost and entry.kind is Kind.RUN):
                continue
            try:
                self.calls[i]()
            except BaseException as error:
                self._note(execution, i, error)
                if entry.kind is not Kind.RUN:
                    return
                lost |= {entry.step, *dependents(self.plan, entry.step)}
