"""One plan being run: its slots, the queue before them, and the hand-over between runs.

A slot is taken, its program executes, the slot goes to the next queued run or back to the free
ones. Nothing here knows what kind of device works.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from asyncnet_gpu.backends.base import (
    AbstractBackend,
    AbstractProgram,
    Execution,
    ProgramOptions,
    Ranges,
)
from asyncnet_gpu.blame import blame, describe_step
from asyncnet_gpu.errors import AsyncNetError, DeadlineExceeded, NetError, message
from asyncnet_gpu.forking import now_and_after_fork
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.run import Run, State, cancelled_error, expired_error, queue_full_error


class ExecutableClosed(AsyncNetError):
    """A run was asked for after `close`."""


def closed_error() -> ExecutableClosed:
    """Return the error of a run after `close`."""
    return ExecutableClosed(
        message("run", "the executable is closed", expected="an open one", got="closed",
                remedy="Compile the net again.")
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class Slot:
    """A complete set of buffers, streams and events; one run at a time."""

    index: int
    program: AbstractProgram
    era: object  # of the engine that made it: another one after a fork


@final
class Engine:
    """Runs one plan on one backend.

    Parameters
    ----------
    values
        Persistent storages, shared by all slots (and by the engines of other modes).
    n_slots
        Runs in flight. A plan that updates a state has one, since the next run reads what this one
        writes.
    queue
        Runs that may wait for a slot.
    on_full
        "block" or "raise" (`QueueFull`) when the queue is at its bound.
    """

    def __init__(
        self, plan: Plan, backend: AbstractBackend, values: Mapping[int, Any],
        options: ProgramOptions, *, n_slots: int, queue: int, on_full: Literal["block", "raise"],
    ) -> None:  # fmt: skip
        self.plan = plan
        self.timeout_s = options.timeout_s
        self.tracer: Callable[[int, Execution], None] | None = None
        self.ranges: Ranges | None = None  # of the tracer's
        self.cpu_times = False
        self._backend = backend
        self._values = values
        self.options = options
        has_state = any(storage.kind == "state" for storage in plan.graph.storages)
        self.n_slots = 1 if has_state else n_slots
        self._queue_bound = queue
        self._on_full = on_full
        self._queue: deque[Run] = deque()
        self._running: set[Run] = set()
        self._free: list[Slot] = []
        self._closed = False
        self._left_in_parent: list[Slot] = []
        self._node_ids = {node.name: node.id for node in plan.graph.nodes}
        now_and_after_fork(self, Engine._begin_anew)
        self._free.append(self._new_slot())

    def _begin_anew(self) -> None:
        """Have no slots: those of a parent process have threads that are not there in a child."""
        self.lock = threading.Lock()
        self._room = threading.Condition(self.lock)
        self._era = object()
        self._queue.clear()
        self._running.clear()
        if not self._backend.survives_fork:
            self._left_in_parent += self._free  # to free what they have is up to the parent
        self._free = []
        self._n_made = self._n_busy = 0

    @property
    def name(self) -> str:
        """Name of the net."""
        return self.plan.graph.name

    def node_id(self, name: str) -> int:
        """Return the id of a node of the plan by name."""
        return self._node_ids[name]

    def _new_slot(self) -> Slot:
        program = self._backend.program(self.plan, self._values, self.options)
        self._n_made += 1
        return Slot(self._n_made - 1, program, self._era)

    # -- a run that waits --------------------------------------------------------------------

    def run(self, execution: Execution, timeout_s: float | None) -> dict[str, Any]:
        """Execute and wait, in the caller's thread where the backend can."""
        slot = self._take_slot()
        if slot is None:
            return self.submit(execution, None).result(timeout_s)
        ended = False
        try:
            self._prepare(execution)
            ended = slot.program.execute(execution, timeout_s)
        finally:
            if ended:
                self._give_back(slot)
            else:
                # Hangs, or the wait was interrupted: what is under way may still write its buffers.
                late = self._late(slot, execution, timeout_s)
                self._throw_away(slot)
        if not ended:
            raise late
        outputs, error = self._result(execution, slot)
        if error is not None:
            raise error
        return outputs

    def _prepare(self, execution: Execution) -> None:
        """Have an execution note its times when somebody traces."""
        if self.tracer is not None:
            execution.slices, execution.ranges = [], self.ranges
            execution.cpu_times = self.cpu_times

    def _take_slot(self) -> Slot | None:
        """Return an idle slot, making one when fewer than allowed exist; None when all are busy."""
        with self.lock:
            self._check_open()
            if self._free:
                self._n_busy += 1
                return self._free.pop()
            if self._n_busy >= self.n_slots:
                return None
            self._n_busy += 1
        try:
            return self._new_slot()
        except BaseException:
            self._lose_slot()
            raise

    # -- a run that is waited for later --------------------------------------------------------

    def submit(self, execution: Execution, deadline_s: float | None) -> Run:
        """Start a run, or queue it when all slots are busy."""
        run = Run(self, execution, deadline_s)
        slot = self._slot_or_place(run)
        if slot is not None:
            self._start(run, slot)
        return run

    def _slot_or_place(self, run: Run) -> Slot | None:
        """Return a slot for the run; None when it was queued, or ended by its deadline."""
        until = time.monotonic() + self.timeout_s
        if run.deadline_s is not None:
            until = min(until, run.deadline_s)
        slot = self._take_slot()
        if slot is None:
            self.reap()  # a run that hangs and that nobody waits for must not keep others out
        while slot is None:
            slot = self._take_slot()
            if slot is None and self._queue_up(run, until):
                return None
        return slot

    def _queue_up(self, run: Run, until: float) -> bool:
        """Queue the run; False, perhaps after waiting for room, when a slot is to be tried first.

        True also for a run that has ended by its deadline before there was room.
        """
        with self.lock:
            self._check_open()
            if self._free or self._n_busy < self.n_slots:
                return False  # one came free, or was lost, meanwhile
            if len(self._queue) < self._queue_bound:
                self._queue.append(run)  # whoever holds a slot will serve it
                return True
            left = until - time.monotonic()
            if self._on_full == "block" and left > 0:
                # Back-pressure: the caller waits until a run leaves the queue.
                self._room.wait(left)
                return False
        if self._on_full == "block" and until == run.deadline_s:
            run.finish({}, expired_error())
            return True
        raise queue_full_error(self._queue_bound)

    def _start(self, run: Run, slot: Slot) -> None:
        """Start `run` on `slot`, or, when it is too late for that, the next one that is queued.

        A run that cannot be started ends with the error. Nothing is raised: the caller may be the
        thread that has just finished another run.
        """
        waiting: Run | None = run
        while waiting is not None and not self._begin(waiting, slot):
            waiting = self._next_or_free(slot)
        if waiting is None:
            return
        begun = waiting
        self._prepare(begun.execution)
        try:
            slot.program.start(begun.execution, lambda: self._ended(begun, slot))
        except BaseException as error:
            with self.lock:
                self._running.discard(begun)
            begun.finish({}, error)
            self._throw_away(slot)
            if not isinstance(error, Exception):
                raise  # KeyboardInterrupt, SystemExit: not ours to keep

    def _begin(self, run: Run, slot: Slot) -> bool:
        """Mark a run as running; finish it instead when it is cancelled or past its deadline."""
        late = run.deadline_s is not None and time.monotonic() > run.deadline_s
        with self.lock:
            begins = not late and run.state is State.QUEUED and not run.execution.cancelled
            if begins:
                run.state, run.slot, run.started_s = State.RUNNING, slot, time.monotonic()
                self._running.add(run)
        if not begins:
            run.finish({}, expired_error() if late else cancelled_error())
        return begins

    def _next_or_free(self, slot: Slot) -> Run | None:
        """Return the next queued run; without one the slot becomes free."""
        if slot.era is not self._era:
            return None  # a step has forked, and this is the child: the slot is not counted here
        with self.lock:
            run = self._queue.popleft() if self._queue else None
            if run is None:
                self._free.append(slot)
                self._n_busy -= 1
            self._room.notify_all()
        return run

    def _ended(self, run: Run, slot: Slot) -> None:
        """Called by the backend at the end of a run, in one of its threads."""
        with self.lock:
            known = run in self._running
            self._running.discard(run)
        if not known:
            return  # given up before, its slot is gone
        outputs: dict[str, Any] = {}
        error: BaseException | None = None
        try:
            outputs, error = self._result(run.execution, slot)
        except BaseException as failure:  # of the tracer: the waiters must hear of it
            error = failure
        try:
            self._give_back(slot)
        finally:
            run.finish(outputs, error)

    def _result(
        self, execution: Execution, slot: Slot
    ) -> tuple[dict[str, Any], BaseException | None]:
        """Return the outputs of an execution that has ended, or none of them and the error."""
        tracer = self.tracer  # once: another thread may end its trace meanwhile
        if tracer is not None and execution.slices is not None:
            tracer(slot.index, execution)
        if execution.errors:
            return {}, blame(self.plan, slot.index, execution)
        if execution.cancelled:
            return {}, cancelled_error()
        return execution.outputs, None

    def _give_back(self, slot: Slot) -> None:
        """Hand the slot to the next queued run, or to the free ones."""
        run = self._next_or_free(slot)
        if run is not None:
            self._start(run, slot)

    # -- cancelling and hanging runs -----------------------------------------------------------

    def cancel(self, run: Run) -> bool:
        """Cancel a run; False when it had ended."""
        with self.lock:
            if run.state is State.DONE:
                return False
            if run.state is State.RUNNING and run.slot is not None:
                # Under the lock: the slot cannot go to another run meanwhile.
                run.slot.program.cancel(run.execution)
                return True
            run.execution.cancelled = True
            if run in self._queue:
                self._queue.remove(run)
            self._room.notify_all()
        run.finish({}, cancelled_error())
        return True

    def reap(self) -> None:
        """Give up the runs that have taken longer than the limit, and replace their slots."""
        now = time.monotonic()
        with self.lock:
            stuck = [
                r for r in self._running
                if r.started_s is not None and now - r.started_s > self.timeout_s
            ]  # fmt: skip
            self._running.difference_update(stuck)
        for run in stuck:
            assert run.slot is not None
            late = self._late(run.slot, run.execution, self.timeout_s)
            self._throw_away(run.slot)
            run.finish({}, late)

    def _throw_away(self, slot: Slot) -> None:
        """Let go of a slot that cannot be used again; queued runs get a new one."""
        try:
            slot.program.abandon()
        finally:
            if slot.era is self._era:
                self._lose_slot()

    def _lose_slot(self) -> None:
        """Note that a slot is gone, and give the queued runs another one, or the reason why not."""
        with self.lock:
            self._n_busy -= 1
        while True:
            with self.lock:
                run = None
                if self._queue and self._n_busy < self.n_slots:
                    run = self._queue.popleft()
                    self._n_busy += 1
                self._room.notify_all()
            if run is None:
                return
            try:
                fresh = self._new_slot()
            except Exception as error:
                # Whatever it is: a run that waits for a slot must not wait for ever.
                with self.lock:
                    self._n_busy -= 1
                run.finish({}, error)
            else:
                self._start(run, fresh)

    def _late(self, slot: Slot, execution: Execution, timeout_s: float | None) -> DeadlineExceeded:
        steps = slot.program.stuck_at(execution)
        where = "; ".join(describe_step(self.plan, s) for s in steps) or "no step under way"
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        return DeadlineExceeded(
            message(
                f"run of net {self.plan.graph.name!r}", "an operator does not return",
                expected=f"the end within {limit_s} s", got=f"still in {where}",
                remedy="The slot was replaced and the executable can be used; mend the operator or "
                "raise timeout_s.",
            )
        )  # fmt: skip

    def where_now(self, run: Run) -> str:
        """Say what a run is doing, for the error of a wait that took too long."""
        slot = run.slot
        if slot is None:
            return f"{run.state.value}, {len(self._queue)} waiting for {self.n_slots} slots"
        steps = slot.program.stuck_at(run.execution)
        return "still in " + ("; ".join(describe_step(self.plan, s) for s in steps) or "no step")

    # -- barriers ------------------------------------------------------------------------------

    def barrier_reached(self, run: Run, name: str) -> bool:
        """Whether a run has passed the barrier `name`; raises what a failed run raises."""
        node = self._barrier_node(name)
        if run.state is State.DONE:
            error = run.exception(0)
            if error is not None:
                raise error
            return True
        slot = run.slot
        return slot is not None and slot.program.barrier_reached(run.execution, node)

    def _barrier_node(self, name: str) -> int:
        graph = self.plan.graph
        node = graph.nodes[self._node_ids[name]] if name in self._node_ids else None
        if node is None or node.op.name not in BARRIERS:
            known = ", ".join(n.name for n in graph.nodes if n.op.name in BARRIERS) or "none"
            raise NetError(
                message(f"net {graph.name!r}", f"no barrier {name!r}", expected=f"one of {known}",
                        got=repr(name), remedy="Wait for a barrier of the net of this run.")
            )  # fmt: skip
        return node.id

    # -- the end -------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error()

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is queued or under way; False when `timeout_s` passes first."""
        until = time.monotonic() + timeout_s
        with self.lock:
            while self._n_busy:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._room.wait(min(left, 0.1))
        return True

    def close_if_idle(self) -> bool:
        """Close when nothing is queued or under way; False, and nothing is done, when it is."""
        with self.lock:
            if self._n_busy:
                return False
            self._closed = True
        self.close()
        return True

    def close(self) -> None:
        """Cancel what is queued, wait for what runs, free every slot."""
        with self.lock:
            self._closed = True
            queued = list(self._queue)
            self._queue.clear()
            self._room.notify_all()  # who waits for room must learn that there will be none
        for run in queued:
            run.finish({}, cancelled_error())
        if not self.drain(self.timeout_s):
            self.reap()
        with self.lock:
            free, self._free = self._free, []
        with contextlib.ExitStack() as stack:  # each one, whatever another raises
            for slot in free:
                stack.callback(slot.program.close)
