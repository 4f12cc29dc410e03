"""A plan bound to one slot of the device: issuing, replaying, and the end of a run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

from cupy.cuda import runtime

from asyncnet_gpu.backends.base import AbstractProgram, Execution, ProgramOptions, dependents
from asyncnet_gpu.backends.cuda.arrays import Adopted
from asyncnet_gpu.backends.cuda.bound import BoundPlan, planned_bytes
from asyncnet_gpu.backends.cuda.capture import Marks, Recorder
from asyncnet_gpu.backends.cuda.faults import (
    NOT_READY,
    SUCCESS,
    device_error,
    driver_errors,
    explained,
    from_status,
    is_invalidated,
)
from asyncnet_gpu.backends.cuda.frame import Frame
from asyncnet_gpu.backends.cuda.issue import IssueList
from asyncnet_gpu.backends.cuda.issuer import Issuer
from asyncnet_gpu.backends.cuda.progress import last_steps, stuck_steps
from asyncnet_gpu.backends.cuda.reclaim import RECLAIMER
from asyncnet_gpu.backends.cuda.resources import Resources
from asyncnet_gpu.backends.cuda.segments import SHORTEST, make_segments
from asyncnet_gpu.backends.cuda.timing import HostClock
from asyncnet_gpu.backends.cuda.trace import Stopwatch
from asyncnet_gpu.backends.cuda.waiter import Waiter, pause_s
from asyncnet_gpu.errors import DeviceError
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.ops.control import CONTROL
from asyncnet_gpu.plan.types import Plan

_log = logging.getLogger("asyncnet_gpu")

#: Captures that are tried: other threads may spoil one by a call that waits for the device.
_CAPTURES = 3

#: So many launches of ours never block: the driver takes about a thousand before it does.
_SOON = 500

#: How long a wait asks without a pause: about what a pause and its wake-up would take.
_SPIN_S = 100e-6


@final
class CudaProgram(AbstractProgram):
    """One slot's program.

    Attributes
    ----------
    captured
        Whether runs replay a CUDA graph. False in a graph mode when a step refused to be captured;
        the same steps are then issued one by one.
    """

    def __init__(
        self, plan: Plan, values: Mapping[int, Any], options: ProgramOptions, waiter: Waiter
    ) -> None:
        self.plan = plan
        self.options = options
        self._waiter = waiter
        self._where = f"net {plan.graph.name!r}"
        self._lock = threading.Lock()
        self._current: Execution | None = None
        self._held: dict[str, Adopted] = {}
        self._made: dict[str, Any] = {}
        self._joined = True
        self._begun = False
        self._all_issued = True
        self._blanked = False
        self._abandoned = False
        self._marked: set[int] = set()
        self._stopwatch: Stopwatch | None = None
        self._timed: IssueList | None = None
        self._host_clock = HostClock(len(plan.steps))
        self._issuer: Issuer | None = None
        self._graph = 0
        self._resources = Resources(self._where, planned_bytes(plan))
        try:
            self._build(values)
        except BaseException as error:
            RECLAIMER.release(self._resources.close)
            wrapped = explained(self._where, error)
            if wrapped is error:
                raise
            raise wrapped from error

    # -- made once ---------------------------------------------------------------------------

    def _build(self, values: Mapping[int, Any]) -> None:
        plan, resources = self.plan, self._resources
        self._bound = bound = BoundPlan(plan, values, self.options, resources)
        self._streams = bound.streams
        recorders = {s.records: s for s in plan.steps if s.records is not None}
        self._events = [
            resources.event(self._streams[recorders[e].stream].device)
            for e in range(plan.n_events)
        ]  # fmt: skip
        self._barrier_events = {
            step.node: resources.event(self._streams[step.stream].device)
            for step in plan.steps
            if plan.graph.nodes[step.node].op.name in BARRIERS
        }
        self._done = resources.event(self._streams[0].device)
        self._frame = self._replay_frame = Frame(bound, resources, self._done, replay=False)
        self._issue = self._issue_list(None)
        #: Code of the user's may never return, on the host or on the device.
        self._trusted = not any(n.op.effect and n.op.name not in BARRIERS for n in plan.graph.nodes)
        #: Launches that wait for the device may not return where what it waits for does not end.
        self._waits = any(n.op.name in CONTROL for n in plan.graph.nodes)
        self._marks: Marks | None = None
        for stream in self._streams:
            # What binding has uploaded and filled must be there before any stream reads it.
            runtime.streamSynchronize(stream.ptr)
        if plan.mode.startswith("graph") and plan.steps:
            self._capture()
        elif len(bound.fixed) >= SHORTEST:
            self._issue.shorten(make_segments(self._issue, bound.fixed, self._streams, resources))

    def _issue_list(self, timed: list[tuple[int, int]] | None) -> IssueList:
        return IssueList(
            self.plan, self._streams, self._bound.calls, self._events, self._barrier_events,
            self._marked.add, timed, None if timed is None else self._host_clock.tick,
        )  # fmt: skip

    def _capture(self) -> None:
        for left in reversed(range(_CAPTURES)):
            try:
                # All or nothing: a run must not find a graph without what belongs to it.
                self._graph, self._replay_frame, self._marks = self._recorded()
                break
            except Exception as error:
                if left and is_invalidated(error):
                    continue  # another thread waited for the whole device meanwhile
                # Whatever a step raises that cannot be captured, CuPy's or the user's own: the plan
                # is carried out step by step instead, where a real error comes back with its step.
                _log.warning(
                    "[cuda] %s cannot be captured as a graph (%s: %s): its steps are issued one "
                    "by one", self._where, type(error).__name__, error,
                )  # fmt: skip
                break
        self._marked.clear()

    def _recorded(self) -> tuple[int, Frame, Marks | None]:
        """Return the graph of the issue list, the frame of its replays, and its marks."""
        resources = self._resources
        marks: Marks | None = None
        recorder = Recorder(self._streams, resources)
        if self._barrier_events:
            node = next(iter(self._barrier_events))
            device = self._bound.devices[self.plan.graph.nodes[node].device]
            marks = Marks(tuple(self._barrier_events), device, resources)
        graph = recorder.capture(self._issue, marks, self._barrier_events)
        return graph, Frame(self._bound, resources, self._done, replay=True), marks

    @property
    def captured(self) -> bool:
        """Whether runs replay a graph."""
        return self._graph != 0

    # -- a run -------------------------------------------------------------------------------

    def execute(self, execution: Execution, timeout_s: float | None) -> bool:
        """Carry the plan out and wait; see the contract."""
        until = time.monotonic() + (self.options.timeout_s if timeout_s is None else timeout_s)
        before = runtime.getDevice()
        handed_on = False
        try:
            self._begin(execution)
            if self._issues_here(execution, timeout_s):
                self._issue_all(execution)
            else:
                # The caller's thread must come back in time, also from a launch that blocks.
                issuer = self._issuer_thread()
                handed_on = True
                issued = issuer.go(partial(self._issue_all, execution))
                if not issued.acquire(True, max(0.0, until - time.monotonic())):
                    return False
            if timeout_s is None and self._trusted and self._joined:
                # Input that is still being made is somebody else's work, and may never end.
                if not self._wait_until(until, self._frame_of(execution).caller_is_done):
                    return False
                self._wait_in_driver()
            elif not self._wait_until(until, self._ended):
                return False
        except BaseException:
            self._all_issued = self._all_issued or not handed_on  # by whom else?
            raise
        finally:
            runtime.setDevice(before)
        self._finish(execution)
        return True

    def _issues_here(self, execution: Execution, timeout_s: float | None) -> bool:
        """Whether the caller's thread may issue: it will come back from the driver, and in time."""
        if not self._trusted:
            return timeout_s is None
        if self._replays(execution) or (len(self._issue) <= _SOON and not self._waits):
            return True
        return timeout_s is None and self._frame_of(execution).caller_is_done()

    def start(self, execution: Execution, on_done: Callable[[], None]) -> None:
        """Issue the plan; the waiter's thread calls `on_done`."""
        before = runtime.getDevice()
        handed_on = False
        try:
            self._begin(execution)
            if self._trusted and self._issues_here(execution, None):
                self._issue_all(execution)
                self._watch(execution, on_done)
            else:
                issuer = self._issuer_thread()
                handed_on = True
                issuer.go(partial(self._issue_then_watch, execution, on_done))
        except BaseException:
            self._all_issued = self._all_issued or not handed_on  # by whom else?
            raise
        finally:
            runtime.setDevice(before)

    def _issue_then_watch(self, execution: Execution, on_done: Callable[[], None]) -> None:
        self._issue_all(execution)
        self._watch(execution, on_done)

    def _watch(self, execution: Execution, on_done: Callable[[], None]) -> None:
        def finish() -> None:
            if not self._abandoned:
                self._finish(execution)
                on_done()

        self._waiter.watch(lambda: self._abandoned or self._ended(), finish)

    def _issuer_thread(self) -> Issuer:
        if self._issuer is None:
            self._issuer = Issuer(f"asyncnet-cuda:{self._streams[0].device}")
        return self._issuer

    def _begin(self, execution: Execution) -> None:
        """Take inputs, allocate outputs, and mark the point on the caller's streams to wait for."""
        with self._lock:
            self._current = execution
            self._all_issued = self._joined = self._begun = False
            self._marked.clear()
            if self._blanked:
                self._blanked = False
                self._issue.restore()
                if self._timed is not None:
                    self._timed.restore()
        if self._marks is not None:
            self._marks.clear()
        execution.started_s = time.perf_counter()
        self._held = dict(execution.inputs)
        streams = next((a.streams for a in self._held.values()), None)
        try:
            if not self._bound.stages_inputs:
                self._set_inputs()
            frame = self._frame_of(execution)
            self._made = frame.outputs.allocate(streams)
            frame.mark_begin(streams)
            self._begun = True
        except Exception as error:  # the run fails, whatever it is; the program stays usable
            execution.fail(-1, self._explain("a run cannot begin", error))

    def _set_inputs(self) -> None:
        arrays = {name: adopted.array for name, adopted in self._held.items()}
        for step, number in self._bound.set_inputs(arrays):
            call = self._bound.calls[step][number]
            self._issue.replace(step, number, call)
            if self._timed is not None:
                self._timed.replace(step, number, call)

    def _explain(self, what: str, error: BaseException) -> BaseException:
        if isinstance(error, driver_errors()):
            wrapped = device_error(self._where, what, error)
            wrapped.__cause__ = error
            return wrapped
        return error

    def _issue_all(self, execution: Execution) -> None:
        """Enqueue the whole run; errors go into `execution`, the end is enqueued in any case."""
        try:
            self._issue_whole(execution, self._frame_of(execution))
        finally:
            self._all_issued = True  # whatever it was: nothing more is enqueued

    def _issue_whole(self, execution: Execution, frame: Frame) -> None:
        try:
            if self._begun and not execution.cancelled:
                inputs = {name: adopted.array for name, adopted in self._held.items()}
                traced = execution.slices is not None
                # Before anything waits for the caller: to start, the clock is waited for.
                issue = self._start_tracing(execution) if traced else self._issue
                frame.enter(inputs)
                self._issue_steps(execution, issue)
                if not execution.errors and not execution.cancelled:
                    frame.leave(self._made, inputs)
        except BaseException as error:
            execution.fail(-1, self._explain("a call of the driver failed", error))
        try:
            frame.join()
            self._joined = True  # else the end is found by asking every stream
        except driver_errors() as error:
            execution.fail(-1, self._explain("the end of the run cannot be marked", error))

    def _replays(self, execution: Execution) -> bool:
        """Whether the run is one launch of a graph; a traced one is issued step by step."""
        return self._graph != 0 and execution.slices is None

    def _frame_of(self, execution: Execution) -> Frame:
        return self._replay_frame if self._replays(execution) else self._frame

    def _issue_steps(self, execution: Execution, issue: IssueList) -> None:
        if self._replays(execution):
            first = self._streams[0]
            runtime.setDevice(first.device)
            runtime.graphLaunch(self._graph, first.ptr)
            return
        position = issue.run(execution)
        if position is not None:
            issue.go_on(execution, position)
        if issue is self._timed:
            self._host_clock.stop()

    def _start_tracing(self, execution: Execution) -> IssueList:
        if self._timed is None or self._stopwatch is None:
            self._stopwatch = Stopwatch(self.plan, self._streams, self._resources)
            self._timed = self._issue_list(self._stopwatch.pairs)
        self._stopwatch.start(time.monotonic() + self.options.timeout_s)
        self._host_clock.start(execution.ranges)
        return self._timed

    # -- the end -----------------------------------------------------------------------------

    def _ended(self) -> bool:
        """Whether nothing of the run is under way; never blocks. A lost device counts as ended."""
        if not self._all_issued:
            return False
        if not self._joined:
            return self._resources.idle()
        return bool(runtime.eventQuery(self._done) != NOT_READY)

    def _wait_in_driver(self) -> None:
        """Wait without a limit: only for kernels that are all ours and come to an end."""
        try:
            runtime.eventSynchronize(self._done)
        except driver_errors():
            pass  # `_finish` asks for the status and reports it

    @staticmethod
    def _wait_until(until: float, ended: Callable[[], bool]) -> bool:
        begun = time.monotonic()
        while not ended():
            now = time.monotonic()
            if now > until:
                return False
            if now - begun > _SPIN_S:
                time.sleep(pause_s(now - begun))
        return True

    def _finish(self, execution: Execution) -> None:
        """Fill the execution in; the device has ended."""
        status = runtime.eventQuery(self._done) if self._joined else SUCCESS
        if status not in (SUCCESS, NOT_READY):
            execution.fail(-1, self._lost(status))
        if execution.slices is not None and self._stopwatch is not None and self._begun:
            self._stopwatch.read(execution)
            self._host_clock.read(execution)
        failed = {e.step for e in execution.errors}
        if not failed and not execution.cancelled:
            execution.outputs = self._made
            execution.passed.update(self._barrier_events)
        elif -1 not in failed and not execution.cancelled:
            lost = set().union(*(dependents(self.plan, step) for step in failed))
            nodes = {self.plan.steps[step].node for step in lost | failed}
            execution.passed.update(self._barrier_events.keys() - nodes)
        self._made = {}
        self._held = {}

    def _lost(self, status: int) -> DeviceError:
        error = from_status(status)
        steps = self.stuck_at(self._current) if self._current is not None else ()
        names = ", ".join(repr(self.plan.node_of(self.plan.steps[s]).name) for s in steps[:8])
        return device_error(self._where, f"under way: {names or 'unknown'}", error)

    # -- watching ----------------------------------------------------------------------------

    def cancel(self, execution: Execution) -> None:
        """Blank what has not been issued; what is enqueued finishes."""
        with self._lock:
            if self._current is not execution:
                return
            execution.cancelled = True
            self._blanked = True
            self._issue.blank()
            if self._timed is not None:
                self._timed.blank()

    def barrier_reached(self, execution: Execution, node: int) -> bool:
        """Whether the device has passed a barrier of the current run."""
        if node in execution.passed:
            return True
        if self._current is not execution:
            return False
        if self._replays(execution):
            return self._marks is not None and self._marks.passed(node)
        # Marked after its event was recorded: before that the event is the last run's.
        return node in self._marked and (runtime.eventQuery(self._barrier_events[node]) == SUCCESS)

    def stuck_at(self, execution: Execution) -> tuple[int, ...]:
        """Return the steps under way, as far as events tell; see `progress`."""
        if self._current is not execution:
            return ()
        if self._replays(execution):
            return last_steps(self.plan)
        issue = self._issue if execution.slices is None else self._timed
        assert issue is not None
        return stuck_steps(issue, self._streams, self._events, all_issued=self._all_issued)

    # -- the very end ------------------------------------------------------------------------

    def close(self) -> None:
        """Free everything, now or soon; the program is idle."""
        if self._issuer is not None:
            self._issuer.stop()
        RECLAIMER.release(self._forget)

    def abandon(self) -> None:
        """Let go; what is still in use is kept until the device has ended, or for ever."""
        self._abandoned = True
        current = self._current
        if current is not None:
            self.cancel(current)
        if self._issuer is not None:
            self._issuer.stop()
        RECLAIMER.give_up(self._waiter, self._ended, self._resources.idle, self._forget)

    def _forget(self) -> None:
        self._issue.drop()
        self._timed = None
        self._stopwatch = None
        self._held, self._made = {}, {}
        self._bound.calls = []
        self._bound.arrays = {}
        self._resources.close()
