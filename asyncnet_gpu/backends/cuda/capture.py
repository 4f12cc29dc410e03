"""Record the issue list once as a CUDA graph, replay it with one launch.

All streams of the slot are forked from the first one by an event and joined back to it, so that the
graph has the plan's own edges. Barriers leave a mark: a copy of four bytes into pinned host memory,
on a stream that nobody waits for but the end, tells the host that a replay has passed one (an event
recorded while capturing is an edge of the graph and cannot be asked).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import final

import numpy as np
from cupy.cuda import runtime

from asyncnet_gpu.backends.base import Execution
from asyncnet_gpu.backends.cuda.arrays import upload
from asyncnet_gpu.backends.cuda.context import Stream
from asyncnet_gpu.backends.cuda.copy import pinned_memory
from asyncnet_gpu.backends.cuda.device import OnDevice
from asyncnet_gpu.backends.cuda.faults import driver_errors
from asyncnet_gpu.backends.cuda.issue import IssueList
from asyncnet_gpu.backends.cuda.resources import Resources
from asyncnet_gpu.errors import OutOfDeviceMemoryError, message


@final
class Marks:
    """Words in pinned memory that replays set when they pass a barrier."""

    def __init__(self, nodes: Sequence[int], device: int, resources: Resources) -> None:
        self._index = {node: i for i, node in enumerate(nodes)}
        n = max(1, len(nodes))
        self._pinned = pinned_memory(4 * n)
        self._words = np.frombuffer(self._pinned, np.uint32, n)
        self._words[:] = 0
        self._one = resources.memory(4, device)
        upload(self._one, np.ones(1, np.uint32), device)
        self.device = device

    def clear(self) -> None:
        """Forget the last replay; nothing is under way."""
        self._words[:] = 0

    def passed(self, node: int) -> bool:
        """Whether the replay under way has passed a barrier."""
        return bool(self._words[self._index[node]])

    def record(self, node: int, stream: int) -> None:
        """Set the node's word in order of a stream."""
        target = self._pinned.ptr + 4 * self._index[node]
        runtime.memcpyAsync(target, self._one.ptr, 4, runtime.memcpyDeviceToHost, stream)


@final
class Recorder:
    """Captures an issue list.

    Parameters
    ----------
    streams
        All streams of the slot; the first is where the graph is launched later.
    """

    def __init__(self, streams: Sequence[Stream], resources: Resources) -> None:
        self._streams = streams
        self._resources = resources
        self._events = [resources.event(s.device) for s in streams]
        self._fork = resources.event(streams[0].device)

    def capture(self, issue: IssueList, marks: Marks | None, barrier_events: dict[int, int]) -> int:
        """Return the executable graph.

        Raises
        ------
        Exception
            Whatever the call raised that cannot be captured; no stream is left capturing.
        """
        origin = self._streams[0]
        with OnDevice(origin.device):
            self._resources.temporaries.was_full = False
            # Relaxed: other threads go on allocating and launching meanwhile.
            runtime.streamBeginCapture(origin.ptr, runtime.streamCaptureModeRelaxed)
            try:
                self._between(issue, marks, barrier_events)
            except BaseException:
                with contextlib.suppress(*driver_errors()):
                    runtime.setDevice(origin.device)
                    graph = runtime.streamEndCapture(origin.ptr)
                    runtime.graphDestroy(graph)
                raise
            runtime.setDevice(origin.device)
            graph = runtime.streamEndCapture(origin.ptr)
        if self._resources.temporaries.was_full:
            runtime.graphDestroy(graph)
            raise OutOfDeviceMemoryError(
                message("cuda", "the device was full while a graph was captured",
                        expected="room for the temporaries of all steps at a time",
                        got="blocks that had to be given back in between",
                        remedy="Free arrays, or lower slots=.")
            )  # fmt: skip
        self._resources.temporaries.keep()
        return self._resources.instantiated(graph)

    def _between(
        self, issue: IssueList, marks: Marks | None, barrier_events: dict[int, int]
    ) -> None:
        origin, others = self._streams[0], self._streams[1:]
        runtime.eventRecord(self._fork, origin.ptr)
        side: Stream | None = None
        if marks is not None:
            side = self._resources.stream(marks.device, 0)
            others = [*others, side]
            self._events.append(self._resources.event(marks.device))
        for stream in others:
            # Takes the stream into the capture: everything on it comes after the fork.
            runtime.streamWaitEvent(stream.ptr, self._fork)
        self._issue(issue)
        if marks is not None and side is not None:
            for node, event in barrier_events.items():
                # RAW on the host's word: it may change only after the barrier has been passed.
                runtime.streamWaitEvent(side.ptr, event)
                marks.record(node, side.ptr)
        for stream, event in zip(others, self._events[1:], strict=True):
            # Joins the stream back: the graph ends when every stream has.
            runtime.setDevice(stream.device)
            runtime.eventRecord(event, stream.ptr)
            runtime.streamWaitEvent(origin.ptr, event)

    @staticmethod
    def _issue(issue: IssueList) -> None:
        probe = Execution({})
        if issue.run(probe) is not None:
            raise probe.errors[0].error
