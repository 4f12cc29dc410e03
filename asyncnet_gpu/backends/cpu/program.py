"""A plan on the CPU: lanes, the threads that work them off, and the end of a run."""

from __future__ import annotations

import _thread
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

from asyncnet_gpu.backends.base import AbstractProgram, Execution, ProgramOptions, dependents
from asyncnet_gpu.backends.cpu.adversary import run_adversarially
from asyncnet_gpu.backends.cpu.blas import GOVERNOR
from asyncnet_gpu.backends.cpu.bound import BoundPlan
from asyncnet_gpu.backends.cpu.cores import usable_cores
from asyncnet_gpu.backends.cpu.events import Events, FlagEvents, LockEvents
from asyncnet_gpu.backends.cpu.lanes import Lane
from asyncnet_gpu.backends.cpu.native.library import Library, library
from asyncnet_gpu.backends.cpu.numpy_state import new_context, set_up
from asyncnet_gpu.backends.cpu.recording import Kind
from asyncnet_gpu.errors import DeviceError, message
from asyncnet_gpu.plan.types import Plan


@final
class CpuProgram(AbstractProgram):
    """One slot's program; implements `lanes.Shared`."""

    def __init__(self, plan: Plan, values: Mapping[int, Any], options: ProgramOptions) -> None:
        self.plan = plan
        self.options = options
        self.lost: set[int] = set()
        self.hurt = False
        self._lock = threading.Lock()
        self._current: Execution | None = None
        self._on_done: Callable[[], None] | None = None
        self._tokens: list[int] = []
        self._use = object()  # of the BLAS libraries, by the run under way
        self._copied: dict[str, Any] = {}
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._workers: dict[int, _Worker] = {}
        self._changed_lanes = False
        self._runs = 0
        self._context = new_context()
        self._bound = BoundPlan(plan, values, self._pass_barrier)
        functions = library()
        if functions is None:
            self._events: Events = LockEvents(plan.n_events, options.timeout_s)
        else:
            spin = sum(stream.kind == "compute" for stream in plan.streams) <= usable_cores()
            self._events = FlagEvents(plan.n_events, options.timeout_s, spin=spin)
        self._lanes = self._build_lanes(functions)
        self._lane_of = {step: lane for lane in self._lanes for step in lane.positions}

    def _build_lanes(self, functions: Library | None) -> list[Lane]:
        lanes: dict[int, Lane] = {}
        launches = self._bound.bind()
        for index, step in enumerate(self.plan.steps):
            lane = lanes.setdefault(step.stream, Lane(step.stream, self))
            for event in step.waits:
                # Order: this step may not start before the step of another lane that recorded
                # the event has finished (the plan knows the blob or the bytes they share).
                lane.add(Kind.WAIT, index, *self._events.wait(event))
            lane.add(Kind.RUN, index, launches[index])
            if step.records is not None:
                lane.add(Kind.RECORD, index, self._events.record(step.records))
        made = [lanes[stream] for stream in sorted(lanes)]
        self._bound.point_at_inputs(
            [calls for lane in made for calls in lane.close(functions, self._events.state)]
        )
        return made

    # -- a run -----------------------------------------------------------------------------

    def execute(self, execution: Execution, timeout_s: float | None) -> bool:
        """Carry the plan out; see the contract."""
        return self._context.run(self._execute, execution, timeout_s)

    def _execute(self, execution: Execution, timeout_s: float | None) -> bool:
        self._begin(execution, None)
        lanes = self._lanes
        if self.options.adversary_seed is not None:
            self._adversary(execution)
            return True
        if timeout_s is None and len(lanes) <= 1:
            for lane in lanes:
                lane.run(execution)  # no waits in a single lane: it cannot be stuck
            self._finish(execution)
            return True
        inline = timeout_s is None
        for lane in lanes[1:] if inline else lanes:
            self._worker(lane).go(execution)
        if inline:
            # The caller works one lane off itself: one thread switch less.
            if not lanes[0].run(execution):
                return False
            self._lane_ended(lanes[0], execution)
        elif not lanes:
            self._finish(execution)
        limit_s = self.options.timeout_s if timeout_s is None else timeout_s
        # Order: outputs may be read only after every lane has ended.
        return self._done.acquire(True, limit_s) if lanes else True

    def start(self, execution: Execution, on_done: Callable[[], None]) -> None:
        """Hand every lane to its worker thread."""
        self._begin(execution, on_done)
        if self.options.adversary_seed is not None:
            self._context.run(self._adversary, execution)
            on_done()  # not in the context: it may start the next run, which enters it again
            return
        if not self._lanes:
            self._finish(execution)
            on_done()
        for lane in self._lanes:
            self._worker(lane).go(execution)

    def _begin(self, execution: Execution, on_done: Callable[[], None] | None) -> None:
        with self._lock:  # a cancel of the run before, however late, changes nothing any more
            self._current = execution
            self._on_done = on_done
            self._runs += 1
            if self.hurt or self._changed_lanes:
                self._heal()
            self._events.begin()
        for step, launch in self._bound.set_inputs(execution.inputs):
            self._lane_of[step].replace(step, launch)
        if len(self._lanes) > 1:
            self._tokens = list(range(len(self._lanes)))
        else:
            self._tokens = [0]
        if self.options.blas_threads is not None:
            self._use = object()
            GOVERNOR.acquire(self.options.blas_threads, self._use)
        if execution.cancelled:  # before the lanes were as they are now
            with self._lock:
                self._run_empty()
        execution.started_s = time.perf_counter()

    def _lift_limit(self) -> None:
        """End the run's use of the limit on BLAS threads.

        Once, though an abandoned run ends twice: when it is given up, and when the step that hung
        comes back after all.
        """
        if self.options.blas_threads is not None:
            GOVERNOR.release(self._use)

    def _heal(self) -> None:
        """Undo what an error or a cancelled run left behind."""
        self.lost = set()
        self.hurt = False
        if self._changed_lanes:
            self._changed_lanes = False
            for lane in self._lanes:
                lane.restore()

    def _lane_ended(self, lane: Lane, execution: Execution) -> None:
        # Each lane copies what it made, so that the copies overlap as well.
        if not self.hurt:
            try:
                self._copied.update(self._bound.outputs_of(lane.stream))
            except MemoryError as error:
                with self._lock:
                    execution.fail(-1, error)
        # list.pop is one atomic step of the interpreter: exactly one lane draws the 0.
        if self._tokens.pop() == 0:
            on_done = self._on_done
            self._finish(execution)
            if on_done is None:
                self._done.release()
            else:
                on_done()

    def _finish(self, execution: Execution) -> None:
        self._lift_limit()
        if execution.slices is not None:
            for lane in self._lanes:
                if lane.recorder is not None:
                    # Read when somebody looks: here it would take the run's time.
                    into = execution.slices, execution.host, execution.started_s
                    execution.unread.append(partial(lane.recorder.read, *into))
                    lane.recorder = None
        if not execution.errors and not execution.cancelled:
            try:
                execution.outputs = self._bound.outputs(self._copied)
            except MemoryError as error:  # of this run, not of the thread that happens to end it
                execution.fail(-1, error)
        self._copied = {}

    def _adversary(self, execution: Execution) -> None:
        assert self.options.adversary_seed is not None
        self._bound.poison()
        run_adversarially(self._lanes, execution, (self.options.adversary_seed, self._runs))
        self._finish(execution)

    # -- errors, cancelling, barriers --------------------------------------------------------

    def step_failed(self, execution: Execution, step: int, error: BaseException) -> None:
        """Note an error; the steps that need what it made are lost."""
        # The step itself too: what failed may be its wait, interrupted by a handler of a signal.
        lost = dependents(self.plan, step) | {step}
        with self._lock:
            execution.fail(step, error)
            self.lost |= lost
            self.hurt = True
            self._events.leave(now=False)

    def cancel(self, execution: Execution) -> None:
        """Have the lanes run empty; those of a run that has not begun will."""
        execution.cancelled = True
        with self._lock:
            if self._current is execution:
                self._run_empty()

    def _run_empty(self) -> None:
        """Replace every launch that has not begun; the caller has the lock."""
        self.hurt = True
        self._changed_lanes = True
        # First: a lane that runs empty records its events, though what they stand for is not there.
        self._events.leave(now=False)
        for lane in self._lanes:
            lane.run_empty()
        # Last: what follows a list that ends early, without a word, must not be a launch.
        self._events.leave(now=True)

    def _pass_barrier(self, node: int) -> None:
        if self._current is not None:
            self._current.passed.add(node)

    def barrier_reached(self, execution: Execution, node: int) -> bool:
        """Whether the barrier's step has been worked off."""
        return node in execution.passed

    def stuck_at(self, execution: Execution) -> tuple[int, ...]:
        """Return the steps whose launch is under way in some lane."""
        stuck = []
        for lane in self._lanes:
            position = lane.position
            if position < len(lane.meaning) and lane.meaning[position][0] is Kind.RUN:
                stuck.append(lane.meaning[position][1])
        return tuple(sorted(stuck))

    # -- threads -----------------------------------------------------------------------------

    def _worker(self, lane: Lane) -> _Worker:
        worker = self._workers.get(lane.stream)
        if worker is None:
            device = self.plan.streams[lane.stream].device
            worker = _Worker(
                lane, partial(self._lane_ended, lane), f"asyncnet-cpu:{device}/{lane.stream}"
            )
            self._workers[lane.stream] = worker
        return worker

    def close(self) -> None:
        """Stop the worker threads and wait for them."""
        for worker in self._workers.values():
            worker.stop()
        for worker in self._workers.values():
            worker.join(self.options.timeout_s)
        self._workers = {}

    def abandon(self) -> None:
        """Tell the threads to stop when they can; a hanging operator keeps its own thread."""
        if self._current is not None:
            self.cancel(self._current)
            self._current = None
        for worker in self._workers.values():
            worker.stop()
        self._events.give_up()  # whoever waits for the hanging step goes home
        self._lift_limit()


@final
class _Worker:
    """Thread of one lane; sleeps on a lock between runs."""

    def __init__(self, lane: Lane, ended: Callable[[Execution], None], name: str) -> None:
        self._lane = lane
        self._ended = ended
        self._go = _thread.allocate_lock()
        self._go.acquire()
        self._execution: Execution | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise DeviceError(
                message("cpu", "cannot start a thread", expected="a worker for each stream",
                        got=str(error), remedy="Lower max_streams or slots.")
            ) from error  # fmt: skip

    def go(self, execution: Execution) -> None:
        self._execution = execution
        self._go.release()

    def _loop(self) -> None:
        set_up()
        while not self._stopped:
            self._go.acquire()  # idle between runs; `stop` wakes it
            execution, self._execution = self._execution, None
            if execution is None:
                return
            if self._lane.run(execution):
                self._ended(execution)
            del execution  # inputs and outputs belong to the caller, not to an idle thread

    def stop(self) -> None:
        self._stopped = True
        with contextlib.suppress(RuntimeError):  # woken already: it stops when it has run
            self._go.release()

    def join(self, timeout_s: float) -> None:
        if self._thread is not threading.current_thread():  # which ends by itself
            self._thread.join(timeout_s)
