"""Barriers: the definitions that the ancestor named, and the handle that a host can wait on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncnet_gpu.errors import DeadlineExceeded, message
from asyncnet_gpu.limits import limit_s

if TYPE_CHECKING:
    from asyncnet_gpu.blob import Blob
    from asyncnet_gpu.net import AsyncNet
    from asyncnet_gpu.run import Run

_FIRST_PAUSE_S = 20e-6
_LONGEST_PAUSE_S = 1e-3


@dataclass(frozen=True, slots=True)
class AsyncBarrierOp:
    """A barrier on one device, as data: the blobs pass through in place.

    Whatever reads one of `blobs` later starts after everything that produced all of them.
    `outputs` may be left out; if given they must be the blobs themselves.
    """

    blobs: tuple[Blob, ...]
    outputs: Sequence[object] | None = None
    name: str | None = None

    def add_to(self, net: AsyncNet) -> AsyncNetBarrier:
        """Add the barrier to `net`; raises `NetError` when it is out of place."""
        return net.barrier(*self.blobs, name=self.name, outputs=self.outputs, cross_device=False)


@dataclass(frozen=True, slots=True)
class AsyncNetBarrierOp:
    """A barrier across devices, or over the whole net when `blobs` is empty, as data."""

    blobs: tuple[Blob, ...] = ()
    outputs: Sequence[object] | None = None
    name: str | None = None
    cross_device: bool = True

    def add_to(self, net: AsyncNet) -> AsyncNetBarrier:
        """Add the barrier to `net`; raises `NetError` when it is out of place."""
        return net.barrier(
            *self.blobs, name=self.name, outputs=self.outputs, cross_device=self.cross_device
        )


class AsyncNetBarrier:
    """What ``net.barrier(...)`` returns: lets a host act when a run has passed the barrier.

    Attributes
    ----------
    name
        Of the barrier's node.
    members
        Names of the blobs that pass through it; empty for a barrier over the whole net.
    """

    __slots__ = ("members", "name", "net")

    def __init__(self, net: AsyncNet, name: str, members: tuple[str, ...]) -> None:
        self.net = net
        self.name = name
        self.members = members

    def reached(self, run: Run) -> bool:
        """Whether everything before the barrier has finished in `run`; never blocks.

        Raises
        ------
        AsyncNetError
            What the run raised, if it failed before it passed the barrier.
        """
        return run.barrier_reached(self.name)

    def wait(self, run: Run, timeout_s: float | None = None) -> None:
        """Block until `run` has passed the barrier; the run itself goes on.

        Parameters
        ----------
        timeout_s
            Limit in seconds; None takes the executable's own.

        Raises
        ------
        DeadlineExceeded
            If the limit passes first; the run is not touched.
        """
        where = f"barrier {self.name!r}"
        longest_s = run.timeout_s if timeout_s is None else limit_s(where, "timeout_s", timeout_s)
        deadline = time.monotonic() + longest_s
        pause_s = _FIRST_PAUSE_S
        while not self.reached(run):
            self._check(deadline, longest_s)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def of(self, run: Run) -> BarrierInRun:
        """Return this barrier in one run, for ``await barrier.of(run)``."""
        return BarrierInRun(self, run)

    def _check(self, deadline: float, longest_s: float) -> None:
        if time.monotonic() > deadline:
            raise DeadlineExceeded(
                message(
                    f"barrier {self.name!r}", "not passed in time",
                    expected=f"within {longest_s} s", got="still waiting",
                    remedy="The run goes on; wait again or cancel it.",
                )
            )  # fmt: skip

    def __repr__(self) -> str:
        members = ", ".join(self.members) or "the whole net"
        return f"<AsyncNetBarrier {self.name!r} over {members}>"


class BarrierInRun:
    """One barrier in one run; awaitable."""

    __slots__ = ("barrier", "run")

    def __init__(self, barrier: AsyncNetBarrier, run: Run) -> None:
        self.barrier = barrier
        self.run = run

    def reached(self) -> bool:
        """See `AsyncNetBarrier.reached`."""
        return self.barrier.reached(self.run)

    def wait(self, timeout_s: float | None = None) -> None:
        """See `AsyncNetBarrier.wait`."""
        self.barrier.wait(self.run, timeout_s)

    def __await__(self) -> Generator[Any, None, None]:
        return self._poll().__await__()

    async def _poll(self) -> None:
        deadline = time.monotonic() + self.run.timeout_s
        pause_s = _FIRST_PAUSE_S
        while not self.reached():
            self.barrier._check(deadline, self.run.timeout_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
