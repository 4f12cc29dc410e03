"""A stream on the CPU: a list of instructions that one thread works off, and its events.

The loop over a lane is ``for instruction in instructions: instruction()`` and nothing else: no
test for errors, cancelling or tracing. Whatever is unusual replaces instructions or raises, and
leaves the fast loop for a slow one, which goes on from where the iterator stood. Launches that
follow one another without an event between them may be one instruction of the fast loop; the slow
one has an instruction for each.
"""

from __future__ import annotations

import _thread
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, final

from asyncnet_gpu.backends.base import Execution
from asyncnet_gpu.backends.cpu.recording import LaneRecorder

Instruction = Callable[[], object]


class Kind(Enum):
    """What an instruction does."""

    WAIT = "wait"
    RUN = "run"
    RECORD = "record"


class DrainError(Exception):
    """Leaves the fast loop: something failed or was cancelled elsewhere."""


class StuckError(Exception):
    """An event was not recorded within the limit: a step of another lane hangs."""


class Shared(Protocol):
    """What lanes of one program share."""

    lost: set[int]
    hurt: bool

    def step_failed(self, execution: Execution, step: int, error: BaseException) -> None:
        """Note an error and the steps that are lost with it."""


def leave() -> None:
    """Instruction that takes the place of launches when a run is cancelled."""
    raise DrainError


@final
class Wait:
    """Wait of one step for one event: a lock that the recorder opens and this wait closes again.

    A lock of its own for each waiting step makes an event reset itself: after a run every lock is
    closed as before it.
    """

    __slots__ = ("_limit_s", "_shared", "lock")

    def __init__(self, shared: Shared, limit_s: float) -> None:
        self.lock = _thread.allocate_lock()
        self.lock.acquire()
        self._shared = shared
        self._limit_s = limit_s

    def __call__(self) -> None:
        """Block until the event is recorded; leave the fast loop if something failed."""
        if not self.lock.acquire(True, self._limit_s):
            raise StuckError
        if self._shared.hurt:
            raise DrainError


@final
class Record:
    """Opens the locks of all steps that wait for an event."""

    __slots__ = ("_locks",)

    def __init__(self, waits: list[Wait]) -> None:
        self._locks = [wait.lock for wait in waits]

    def __call__(self) -> None:
        """Record the event."""
        for lock in self._locks:
            lock.release()


@final
@dataclass(slots=True, eq=False)
class Lane:
    """Instructions of one stream, in order.

    Attributes
    ----------
    stream
        Id in the plan.
    joined
        What the fast loop calls instead: for some first steps, how many launches from there on one
        instruction carries out, and that instruction.
    instructions, meaning
        Parallel lists: what to call, and its kind and step.
    positions
        Step to index of its launch.
    under_way
        The loop of the last run: its iterator, which knows how far it has come, and for each of its
        instructions the index of the first in `instructions` that it carries out.
    recorder
        Times of the last traced run.
    """

    stream: int
    shared: Shared
    joined: Mapping[int, tuple[int, Instruction]] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    meaning: list[tuple[Kind, int]] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)
    under_way: tuple[Iterator[Instruction], Sequence[int]] | None = None
    recorder: LaneRecorder | None = None
    _fast: list[Instruction] = field(default_factory=list)
    _firsts: list[int] = field(default_factory=list)

    def add(self, kind: Kind, step: int, instruction: Instruction) -> None:
        """Append an instruction."""
        if kind is Kind.RUN:
            self.positions[step] = len(self.instructions)
        self.instructions.append(instruction)
        self.meaning.append((kind, step))

    def replace(self, step: int, launch: Instruction) -> None:
        """Let another launch stand for a step that no other is joined with."""
        index = self.positions[step]
        self.instructions[index] = launch
        if self._fast:
            self._fast[bisect_right(self._firsts, index) - 1] = launch

    def join(self) -> None:
        """Make the list of the fast loop anew, once all instructions are there."""
        self._fast, self._firsts = [], []
        index = 0
        while index < len(self.instructions):
            kind, step = self.meaning[index]
            n, instruction = 1, self.instructions[index]
            if kind is Kind.RUN and step in self.joined:
                n, instruction = self.joined[step]
            self._fast.append(instruction)
            self._firsts.append(index)
            index += n

    def run_empty(self) -> None:
        """Replace every launch, so that whoever works this lane off leaves the fast loop."""
        for index in self.positions.values():
            self.instructions[index] = leave
        for place, index in enumerate(self._firsts):
            if self.meaning[index][0] is Kind.RUN:
                self._fast[place] = leave

    def run(self, execution: Execution) -> bool:
        """Work the lane off in this thread; errors go into `execution`, nothing is raised.

        Returns False when another lane hangs: this one has then given up in the middle.
        """
        if execution.slices is not None:
            self.recorder = LaneRecorder(execution)
            return self._run_from(0, execution, self.recorder)
        cursor = iter(self._fast)
        self.under_way = cursor, self._firsts
        try:
            for instruction in cursor:
                instruction()
        except StuckError:
            return False
        except BaseException as error:
            position = self.position
            self.note(execution, position, error)
            return self._run_from(position + 1, execution, None)
        return True

    @property
    def position(self) -> int:
        """Index of the instruction under way; the length of the lane when it has ended.

        Of launches that are one in the fast loop, the first.
        """
        if self.under_way is None:
            return len(self.instructions)
        cursor, firsts = self.under_way
        left = int(cursor.__length_hint__())  # type: ignore[attr-defined]
        return firsts[len(firsts) - left - 1] if firsts else 0

    def note(self, execution: Execution, index: int, error: BaseException) -> None:
        """Keep the error of an instruction; leaving the fast loop is none."""
        if not isinstance(error, DrainError):
            self.shared.step_failed(execution, self.meaning[index][1], error)

    def skips(self, execution: Execution, index: int) -> bool:
        """Whether a launch must not begin: cancelled, or what it needs was never made."""
        kind, step = self.meaning[index]
        return kind is Kind.RUN and (execution.cancelled or step in self.shared.lost)

    def _run_from(self, start: int, execution: Execution, recorder: LaneRecorder | None) -> bool:
        """The slow loop: signal everything, run what is not lost, note times when asked."""
        cursor = iter(self.instructions)
        self.under_way = cursor, range(len(self.instructions))
        for _ in range(start):
            next(cursor)
        for index, instruction in enumerate(cursor, start):
            if self.skips(execution, index):
                continue
            kind, step = self.meaning[index]
            try:
                if recorder is None or kind is Kind.RECORD:
                    instruction()
                else:
                    recorder.carry_out(kind.value, step, instruction)
            except StuckError:
                return False
            except BaseException as error:
                self.note(execution, index, error)
        return True
