"""`Run`: one execution of a net, as a future; and the error that a failed one raises."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Generator
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, final

from asyncnet_gpu.backends.base import Execution
from asyncnet_gpu.errors import DeadlineExceeded, QueueFull, RunCancelled, message
from asyncnet_gpu.forking import after_fork
from asyncnet_gpu.limits import limit_s

if TYPE_CHECKING:
    import threading

    from asyncnet_gpu.engine import Slot

_LOG = logging.getLogger(__name__)


class State(Enum):
    """Where a run is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class Runner(Protocol):
    """What carries runs out: an `Engine`, or whatever else hands them to callers.

    Attributes
    ----------
    lock
        Guards the state of every run.
    timeout_s
        Limit of waits that name none, in seconds.
    """

    lock: threading.Lock
    timeout_s: float

    @property
    def name(self) -> str:
        """Name of the net."""

    def cancel(self, run: Run) -> bool:
        """Cancel a run; False when it had ended."""

    def reap(self) -> None:
        """Give up the runs that have taken longer than the limit."""

    def where_now(self, run: Run) -> str:
        """Say what a run is doing."""

    def barrier_reached(self, run: Run, name: str) -> bool:
        """Whether a run has passed a barrier; `NetError` when the net has none of that name."""


@final
class Run:
    """One execution of a net. Made by ``exe.submit``; a future for threads and for asyncio.

    Attributes
    ----------
    timeout_s
        Limit of waits that name none, in seconds.
    """

    __slots__ = (
        "__weakref__", "_callbacks", "_done", "_engine", "_error", "_outputs", "deadline_s",
        "execution", "slot", "started_s", "state", "timeout_s",
    )  # fmt: skip

    def __init__(self, engine: Runner, execution: Execution, deadline_s: float | None) -> None:
        self._engine = engine
        self.execution = execution
        self.slot: Slot | None = None
        self.state = State.QUEUED
        self.timeout_s = engine.timeout_s
        self.started_s: float | None = None
        after_fork(self, Run.lose)
        if deadline_s is not None:
            deadline_s = time.monotonic() + limit_s("submit", "deadline_s", deadline_s)
        self.deadline_s = deadline_s
        self._outputs: dict[str, Any] = {}
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Run], None]] = []
        self._done = _thread.allocate_lock()
        self._done.acquire()

    # -- what a user calls -------------------------------------------------------------------

    def done(self) -> bool:
        """Whether the run has ended: with outputs, an error, or cancelled."""
        return self.state is State.DONE

    def result(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the end and return the outputs by name.

        Parameters
        ----------
        timeout_s
            Limit of this wait in seconds. The run goes on when it passes. None waits as long as
            the executable lets a run take.

        Raises
        ------
        DeadlineExceeded
            If the limit passes first, naming the steps under way.
        RunCancelled
            If the run was cancelled.
        DeviceError
            If a step failed; also an instance of the error that the operator raised.
        """
        self._wait(timeout_s)
        if self._error is not None:
            raise self._error
        return self._outputs

    def exception(self, timeout_s: float | None = None) -> BaseException | None:
        """Wait for the end and return the error, or None."""
        self._wait(timeout_s)
        return self._error

    def cancel(self) -> bool:
        """Ask the run to stop: no further step begins, those under way finish.

        Returns False when it had ended already.
        """
        return self._engine.cancel(self)

    def add_done_callback(self, callback: Callable[[Run], None]) -> None:
        """Call ``callback(run)`` at the end, in the thread that finishes it; at once if done.

        What a callback raises in another thread is logged (``asyncnet_gpu.run``) and dropped: the
        thread belongs to the runs that come after.
        """
        with self._engine.lock:
            if self.state is not State.DONE:
                self._callbacks.append(callback)
                return
        callback(self)

    def __await__(self) -> Generator[Any, None, dict[str, Any]]:
        return self._async_result().__await__()

    async def _async_result(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        def ended_elsewhere(_: Run) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
                loop.call_soon_threadsafe(wake)

        self.add_done_callback(ended_elsewhere)
        while not self.done():
            # Limit: a hanging operator must not keep the event loop waiting for ever.
            await asyncio.wait([ended], timeout=self._left_s())
            self._engine.reap()
        return self.result(0)

    def barrier_reached(self, name: str) -> bool:
        """Whether this run has passed the barrier `name`; raises what a failed run raises.

        Raises
        ------
        NetError
            If the net of this run has no such barrier.
        """
        return self._engine.barrier_reached(self, name)

    def __repr__(self) -> str:
        return f"<Run of {self._engine.name!r}: {self.state.value}>"

    # -- what the engine calls ---------------------------------------------------------------

    def finish(self, outputs: dict[str, Any], error: BaseException | None) -> None:
        """Set the end of the run and wake everybody; called once."""
        with self._engine.lock:
            if self.state is State.DONE:
                return
            self._outputs, self._error = outputs, error
            self.state = State.DONE
            callbacks, self._callbacks = self._callbacks, []
        self._done.release()
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # of the user's code, in a thread that is not the user's
                _LOG.exception("a done-callback of %r failed", self)

    def lose(self) -> None:
        """End in a forked child; done-callbacks are called where the run ends, in the parent."""
        if self.state is State.DONE:
            return
        self._error = lost_error()
        self._callbacks = []
        self.state = State.DONE

    def _left_s(self) -> float:
        """Seconds until the run under way has taken too long."""
        begun = time.monotonic() if self.started_s is None else self.started_s
        return max(0.0, begun + self.timeout_s - time.monotonic()) + 1e-3

    def _wait(self, timeout_s: float | None) -> None:
        until = None
        if timeout_s is not None:
            until = time.monotonic() + limit_s("run", "timeout_s", timeout_s)
        while self.state is not State.DONE:
            left = self._left_s() if until is None else max(0.0, until - time.monotonic())
            if self._done.acquire(True, left):
                self._done.release()  # for the next one who waits
                return
            if until is not None:
                raise self._late(timeout_s)
            self._engine.reap()

    def _late(self, timeout_s: float | None) -> DeadlineExceeded:
        return DeadlineExceeded(
            message(
                "run", "no result in time", expected=f"within {timeout_s} s",
                got=self._engine.where_now(self),
                remedy="The run goes on: wait again, or cancel it.",
            )
        )  # fmt: skip


def lost_error() -> RunCancelled:
    """Return the error, in a forked child, of a run of its parent."""
    return RunCancelled(
        message("run", "not of this process", expected="a run begun after the fork",
                got="one that goes on in the parent", remedy="Begin another one here.")
    )  # fmt: skip


def cancelled_error() -> RunCancelled:
    """Return the error of a cancelled run."""
    return RunCancelled(
        message("run", "cancelled", expected="a result", got="run.cancel()", remedy="Submit again.")
    )


def expired_error() -> DeadlineExceeded:
    """Return the error of a run that could not begin before its deadline."""
    return DeadlineExceeded(
        message("run", "the deadline passed before the launch", expected="a free slot in time",
                got="none", remedy="Raise slots=, or give the run a later deadline_s.")
    )  # fmt: skip


def queue_full_error(bound: int) -> QueueFull:
    """Return the error of a run that found all slots busy and no place in the queue."""
    return QueueFull(
        message(
            "submit", "all slots are busy and the queue is full",
            expected=f"at most {bound} runs waiting", got=bound + 1,
            remedy="Wait for a run, or raise slots= or queue=.",
        )
    )  # fmt: skip
