"""Runs that need the host between plans: each in a thread of its own, behind the usual `Run`.

A model cut into stages is several plans with work of the host in between, so no engine can carry
it out in one go. Here a thread does: it submits what belongs to devices and waits for it. Slots,
queue, deadlines and cancelling are those of `asyncnet_gpu.engine`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from asyncnet_gpu.backends.base import Execution
from asyncnet_gpu.engine import closed_error
from asyncnet_gpu.errors import NetError, message
from asyncnet_gpu.forking import now_and_after_fork
from asyncnet_gpu.limits import longest_run_s
from asyncnet_gpu.run import Run, State, cancelled_error, expired_error, queue_full_error


@dataclass(frozen=True, slots=True)
class Options:
    """Those of the options of `asyncnet_gpu.compile` that say how runs are queued."""

    slots: int = 1
    queue: int = 64
    on_full: str = "block"
    timeout_s: float = 600.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Options:
        """Pick them out of all options."""
        picked = {name: options[name] for name in cls.__slots__ if name in options}
        if "timeout_s" in picked:
            picked["timeout_s"] = longest_run_s(picked["timeout_s"])
        return cls(**picked)


@final
class Progress:
    """How far a run is, and the way to stop it. Its thread writes, others read and cancel."""

    __slots__ = ("_inner", "_lock", "run", "where")

    def __init__(self, run: Run, lock: threading.Lock) -> None:
        self.run = run
        self.where = "its start"
        self._inner: Run | None = None
        self._lock = lock

    def check(self) -> None:
        """Raise `RunCancelled` when somebody has cancelled the run."""
        if self.run.execution.cancelled:
            raise cancelled_error()

    def enter(self, where: str) -> None:
        """Note what comes now, unless somebody has cancelled the run."""
        self.check()
        self.where = where

    def wait(self, start: Callable[[], Run]) -> dict[str, Any]:
        """Start the run of one plan and wait for it; its executable limits how long that takes."""
        self.check()
        inner = start()
        with self._lock:
            self._inner = inner
        if self.run.execution.cancelled:  # while it was being started
            inner.cancel()
        try:
            return inner.result()
        finally:
            with self._lock:
                self._inner = None

    def cancel(self) -> None:
        """Ask for the end: what is under way finishes, nothing more begins."""
        with self._lock:
            self.run.execution.cancelled = True
            inner = self._inner
        if inner is not None:
            inner.cancel()

    def describe(self) -> str:
        """Say where the run is."""
        inner = self._inner
        return self.where if inner is None else f"{self.where}, {inner!r}"


Work = Callable[[Mapping[str, Any], Progress], dict[str, Any]]


@final
class HostRuns:
    """Carries out runs in threads; what `Run` needs of an engine.

    Parameters
    ----------
    name
        Of the net.
    work
        Carries one out: takes the inputs and how far it is, returns the outputs.
    options
        Slots are threads at a time here. A thread ends when nothing is queued.
    """

    def __init__(self, name: str, work: Work, options: Options) -> None:
        self.timeout_s = options.timeout_s
        self._name = name
        self._work = work
        self._options = options
        self._queue: deque[Run] = deque()
        self._under_way: dict[Run, Progress] = {}
        self._threads: set[int] = set()
        self._closed = False
        now_and_after_fork(self, HostRuns._begin_anew)

    def _begin_anew(self) -> None:
        """Have no threads: a parent's are not there in a child."""
        self.lock = threading.Lock()
        self._room = threading.Condition(self.lock)
        self._queue.clear()
        self._under_way.clear()
        self._threads.clear()
        self._n_busy = 0

    @property
    def name(self) -> str:
        """Name of the net."""
        return self._name

    # -- starting ------------------------------------------------------------------------------

    def submit(self, inputs: Mapping[str, Any], deadline_s: float | None) -> Run:
        """Start a run, or queue it when all slots are busy; as `Engine.submit`."""
        run = Run(self, Execution(inputs), deadline_s)
        if not self._thread_or_place(run):
            return run
        thread = threading.Thread(
            target=self._serve, args=(run,), name=f"run of {self._name}", daemon=True
        )
        try:
            thread.start()
        except BaseException:
            with self.lock:
                self._n_busy -= 1
                self._room.notify_all()
            raise
        return run

    def _thread_or_place(self, run: Run) -> bool:
        """Whether the run gets a thread; else it was queued, or has ended by its deadline."""
        until = time.monotonic() + self.timeout_s
        if run.deadline_s is not None:
            until = min(until, run.deadline_s)
        blocks = self._options.on_full == "block"
        with self.lock:
            while True:
                if self._closed:
                    raise closed_error()
                if self._n_busy < self._options.slots:
                    self._n_busy += 1
                    return True
                if len(self._queue) < self._options.queue:
                    self._queue.append(run)  # a thread under way will serve it
                    return False
                left = until - time.monotonic()
                if not blocks or left <= 0:
                    break
                self._room.wait(left)  # back-pressure: until a run leaves the queue
        if blocks and until == run.deadline_s:
            run.finish({}, expired_error())
            return False
        raise queue_full_error(self._options.queue)

    # -- in the threads ------------------------------------------------------------------------

    def _serve(self, first: Run) -> None:
        """Carry out a run and those that are queued behind it."""
        run: Run | None = first
        with self.lock:
            self._threads.add(threading.get_ident())
        while run is not None:
            outputs, error = self._carry_out(run)
            left = self._leave_if_idle(run)
            run.finish(outputs, error)  # after that: who waited for it finds a free slot
            run = None if left else self._next()

    def _carry_out(self, run: Run) -> tuple[dict[str, Any], BaseException | None]:
        progress = Progress(run, threading.Lock())
        late = run.deadline_s is not None and time.monotonic() > run.deadline_s
        with self.lock:
            if run.execution.cancelled:
                return {}, cancelled_error()
            if not late:
                run.state = State.RUNNING
                self._under_way[run] = progress
        if late:
            return {}, expired_error()
        try:
            outputs = self._work(run.execution.inputs, progress)
            progress.check()  # cancelled in the last stage: as everywhere, no result then
        except BaseException as error:  # whatever it is, the waiters must hear of it
            return {}, error
        return outputs, None

    def _leave_if_idle(self, run: Run) -> bool:
        """Give the slot back when nothing is queued."""
        with self.lock:
            self._under_way.pop(run, None)
            idle = not self._queue
            if idle:
                self._leave()
        return idle

    def _next(self) -> Run | None:
        with self.lock:
            if self._queue:
                self._room.notify_all()
                return self._queue.popleft()
            self._leave()
        return None

    def _leave(self) -> None:
        if threading.get_ident() in self._threads:  # else a step has forked, and this is the child
            self._threads.discard(threading.get_ident())
            self._n_busy -= 1
        self._room.notify_all()

    # -- what a run asks for -------------------------------------------------------------------

    def cancel(self, run: Run) -> bool:
        """Cancel a run; False when it had ended."""
        with self.lock:
            if run.state is State.DONE:
                return False
            progress = self._under_way.get(run)
            if progress is None:
                run.execution.cancelled = True
                if run in self._queue:
                    self._queue.remove(run)
                self._room.notify_all()
        if progress is not None:
            progress.cancel()
        else:
            run.finish({}, cancelled_error())
        return True

    def reap(self) -> None:
        """Do nothing: a plan's own executable gives up what hangs, and the thread hears of it."""

    def where_now(self, run: Run) -> str:
        """Say what a run is doing, for the error of a wait that took too long."""
        with self.lock:
            progress, waiting = self._under_way.get(run), len(self._queue)
        if progress is None:
            return f"{run.state.value}, {waiting} waiting for {self._options.slots} slots"
        return f"still in {progress.describe()}"

    def barrier_reached(self, run: Run, name: str) -> bool:
        """Refuse: models have no barriers."""
        raise NetError(
            message(f"net {self._name!r}", f"no barrier {name!r}", expected="a net with barriers",
                    got=f"{run!r} of a model that needs the host between its plans",
                    remedy="Wait for the run itself.")
        )  # fmt: skip

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel what is queued, wait for what runs; what takes too long is cancelled as well."""
        with self.lock:
            self._closed = True
            queued = list(self._queue)
            self._queue.clear()
            self._room.notify_all()  # who waits for room must learn that there will be none
        for run in queued:
            run.finish({}, cancelled_error())
        if not self._drain(self.timeout_s):
            with self.lock:
                stuck = list(self._under_way.values())
            for progress in stuck:
                progress.cancel()

    def _drain(self, timeout_s: float) -> bool:
        """Wait until no other thread is busy; False when `timeout_s` passes first."""
        until = time.monotonic() + timeout_s
        with self.lock:
            # A done-callback may close: its thread must not wait for itself.
            own = int(threading.get_ident() in self._threads)
            while self._n_busy > own:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._room.wait(left)
        return True
