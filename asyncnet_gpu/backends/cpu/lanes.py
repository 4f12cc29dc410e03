"""A stream on the CPU: a list of instructions that one thread works off.

The loop over a lane is ``for instruction in instructions: instruction()`` and nothing else: no
test for errors, cancelling or tracing. Whatever is unusual replaces instructions or raises, and
leaves the fast loop for a slow one, which goes on from where the fast one stood. Instructions that
are written down as calls and follow one another are a single one in the fast loop; the slow loop
has an instruction for each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import current_thread, main_thread
from typing import Protocol, final

from asyncnet_gpu.backends.base import Execution
from asyncnet_gpu.backends.cpu.events import Side
from asyncnet_gpu.backends.cpu.native.calls import CallList
from asyncnet_gpu.backends.cpu.native.encode import Calls
from asyncnet_gpu.backends.cpu.native.library import DrainError, LaneState, Library, StuckError
from asyncnet_gpu.backends.cpu.recording import Kind, LaneRecorder

Instruction = Callable[[], object]

#: A list is not made longer than this, so that the thread looks at signals now and then.
_LONGEST_LIST_S = 20e-3


class Shared(Protocol):
    """What lanes of one program share."""

    lost: set[int]

    def step_failed(self, execution: Execution, step: int, error: BaseException) -> None:
        """Note an error and the steps that are lost with it."""


def leave() -> None:
    """Instruction that takes the place of launches when a run is cancelled."""
    raise DrainError


@final
@dataclass(frozen=True, slots=True)
class _Loop:
    """What a run works off: instructions, and for each the index of the first that it stands for.

    Attributes
    ----------
    lists
        By place in `instructions`, the list of calls that it is.
    """

    instructions: list[Instruction]
    firsts: Sequence[int]
    lists: dict[int, CallList]


@final
@dataclass(slots=True, eq=False)
class Lane:
    """Instructions of one stream, in order.

    Attributes
    ----------
    stream
        Id in the plan.
    instructions, meaning
        Parallel lists: what to call, and its kind and step.
    positions
        Step to index of its launch.
    ready
        By index of a wait, whether it would end at once.
    under_way
        The loop and its iterator, which knows how far it has come; None between runs.
    recorder
        Times of the last traced run.
    """

    stream: int
    shared: Shared
    instructions: list[Instruction] = field(default_factory=list)
    meaning: list[tuple[Kind, int]] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)
    ready: dict[int, Callable[[], bool]] = field(default_factory=dict)
    under_way: tuple[Iterator[Instruction], _Loop] | None = None
    recorder: LaneRecorder | None = None
    _sides: list[Side] = field(default_factory=list)
    _fast: _Loop = field(default_factory=lambda: _Loop([], [], {}))
    _intact: tuple[list[Instruction], list[Instruction]] = field(default_factory=lambda: ([], []))
    _state: LaneState = field(default_factory=LaneState)

    def add(
        self, kind: Kind, step: int, side: Side, ready: Callable[[], bool] | None = None
    ) -> None:
        """Append an instruction; `close` ends the lane."""
        index = len(self._sides)
        if kind is Kind.RUN:
            self.positions[step] = index
        if ready is not None:
            self.ready[index] = ready
        self._sides.append(side)
        self.meaning.append((kind, step))

    def close(self, library: Library | None, state: int | None) -> list[CallList]:
        """Make the instructions; return the lists of calls among them.

        Parameters
        ----------
        state
            As `Events.state`.
        """
        fast = _Loop([], firsts := [], {})
        for first, sides in self._runs():
            firsts.append(first)
            if not library or not isinstance(sides[0], Calls):
                assert callable(sides[0])
                self.instructions.append(sides[0])
                fast.instructions.append(sides[0])
                continue
            calls = [side for side in sides if isinstance(side, Calls)]
            made = CallList(calls, library, state, self._state)
            self.instructions += [made.part(i) for i in range(len(calls))]
            fast.lists[len(fast.instructions)] = made
            fast.instructions.append(made.whole())
        self._fast, self._sides = fast, []
        self._intact = list(self.instructions), list(fast.instructions)
        return list(fast.lists.values())

    def _runs(self) -> Iterator[tuple[int, list[Side]]]:
        """Yield, with the index of its first, what is one instruction of the fast loop."""
        index = 0
        while index < len(self._sides):
            first, seconds = index, 0.0
            group: list[Side] = []
            while index < len(self._sides) and seconds < _LONGEST_LIST_S:
                side = self._sides[index]
                if group and not isinstance(side, Calls):
                    break
                group.append(side)
                index += 1
                if not isinstance(side, Calls):
                    break
                seconds += side.seconds
            yield first, group

    def replace(self, step: int, launch: Instruction) -> None:
        """Let another launch stand for a step that is in no list."""
        index = self.positions[step]
        place = bisect_right(self._fast.firsts, index) - 1
        self.instructions[index] = self._intact[0][index] = launch
        self._fast.instructions[place] = self._intact[1][place] = launch

    def run_empty(self) -> None:
        """Replace every launch, so that whoever works this lane off leaves the fast loop."""
        for index in self.positions.values():
            self.instructions[index] = leave
        for place, index in enumerate(self._fast.firsts):
            if place in self._fast.lists or self.meaning[index][0] is Kind.RUN:
                self._fast.instructions[place] = leave

    def restore(self) -> None:
        """Undo `run_empty`."""
        self.instructions[:], self._fast.instructions[:] = self._intact

    def run(self, execution: Execution) -> bool:
        """Work the lane off in this thread; errors go into `execution`.

        Nothing is raised, but in the main thread what is no `Exception`: a `KeyboardInterrupt`.

        Returns False when another lane hangs: this one has then given up in the middle.
        """
        try:
            if execution.slices is None:
                return self._run_plainly(execution)
            self.recorder = LaneRecorder(execution)
            return self._run_traced(execution, self.recorder)
        finally:
            self.under_way = None

    def _run_plainly(self, execution: Execution) -> bool:
        cursor = iter(self._fast.instructions)
        self.under_way = cursor, self._fast
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

    def _run_traced(self, execution: Execution, recorder: LaneRecorder) -> bool:
        """Work the lane off as `run` does, and note when; lists note the times themselves."""
        if execution.ranges is not None:  # a profiler's ranges are begun and ended from Python
            return self._run_from(0, execution, recorder)
        cursor = iter(self._fast.instructions)
        self.under_way = cursor, self._fast
        place = 0
        try:
            for place, instruction in enumerate(cursor):
                first, calls = self._fast.firsts[place], self._fast.lists.get(place)
                kind, step = self.meaning[first]
                if calls is not None:
                    self._state.progress = 0
                    meaning = self.meaning[first : first + len(calls)]
                    recorder.carry_out_list(instruction, calls, self._state, meaning)
                elif kind is Kind.RECORD:
                    instruction()
                else:
                    recorder.carry_out(kind.value, step, instruction)
        except StuckError:
            return False
        except BaseException as error:
            position = self.position
            self.note(execution, position, error)
            # A list may not have begun, for want of memory for its times: it begins now.
            begun = place not in self._fast.lists or self._state.progress != 0
            return self._run_from(position + begun, execution, recorder)
        return True

    @property
    def position(self) -> int:
        """Index of the instruction under way; the length of the lane when it has ended."""
        under_way = self.under_way  # once: the lane may end meanwhile
        if under_way is None:
            return len(self.instructions)
        cursor, loop = under_way
        left = int(cursor.__length_hint__())  # type: ignore[attr-defined]
        place = len(loop.instructions) - left - 1
        if place < 0:
            return 0
        calls = loop.lists.get(place)
        return loop.firsts[place] + (calls.item_at(self._state.progress) if calls else 0)

    def note(self, execution: Execution, index: int, error: BaseException) -> None:
        """Keep the error of an instruction; leaving the fast loop is none.

        What interrupts the program goes on at once: nobody waits for the other lanes, and where it
        came from, an instruction or what lies between two, is not known.
        """
        if not isinstance(error, Exception) and current_thread() is main_thread():
            raise error
        if not isinstance(error, DrainError):
            self.shared.step_failed(execution, self.meaning[index][1], error)

    def skips(self, execution: Execution, index: int) -> bool:
        """Whether a launch must not begin: cancelled, or what it needs was never made."""
        kind, step = self.meaning[index]
        return kind is Kind.RUN and (execution.cancelled or step in self.shared.lost)

    def _run_from(self, start: int, execution: Execution, recorder: LaneRecorder | None) -> bool:
        """The slow loop: signal everything, run what is not lost, note times when asked."""
        cursor = iter(self.instructions)
        self.under_way = cursor, _Loop(self.instructions, range(len(self.instructions)), {})
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
