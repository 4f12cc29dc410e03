"""What surrounds the steps of a run: the caller's streams before them, outputs and the end after.

A plan issued step by step needs all its streams before and after; a replayed graph only the one
that launches it and those that copy outputs on other devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

from cupy.cuda import get_current_stream, runtime

from asyncnet_gpu.backends.cuda.bound import BoundPlan
from asyncnet_gpu.backends.cuda.device import OnDevice
from asyncnet_gpu.backends.cuda.faults import NOT_READY
from asyncnet_gpu.backends.cuda.outputs import Outputs
from asyncnet_gpu.backends.cuda.resources import Resources

Call = Callable[[], object]


@final
class Frame:
    """Calls before and after the steps, made once.

    Parameters
    ----------
    done
        Event recorded at the end of the run, on the first stream.
    replay
        Whether a graph on the first stream does all the steps.
    """

    def __init__(self, bound: BoundPlan, resources: Resources, done: int, *, replay: bool) -> None:
        self._bound = bound
        self._streams = bound.streams
        self.outputs = Outputs(bound, resources.temporaries.malloc, replay=replay)
        used = {0, *self.outputs.streams} if replay else set(range(len(bound.streams)))
        self._others = [s for i, s in enumerate(bound.streams) if i in used and i]
        self._make_begin(resources)
        self._make_fork(resources)
        self._make_join(resources, done)
        self._replay = replay

    def _make_begin(self, resources: Resources) -> None:
        """Prepare the waits of our streams for the caller's, device by device."""
        bound, graph = self._bound, self._bound.plan.graph
        pairs: set[tuple[int, int]] = set()  # stream, caller's device
        for name, streams in bound.input_streams().items():
            device = bound.devices[graph.storages[graph.blobs[name].storage].device]
            pairs |= {(s, device) for s in ({0} if bound.stages_inputs else streams)}
        pairs |= {(slot.stream, slot.device) for slot in self.outputs.slots}
        self._events = {d: resources.event(d) for d in sorted({d for _, d in pairs})}
        # RAW: inputs may still be being written on the caller's stream. WAW, WAR: the pool may have
        # given an output bytes that the caller's stream is still using.
        self._begin = [
            partial(runtime.streamWaitEvent, self._streams[s].ptr, self._events[d])
            for s, d in sorted(pairs)
        ]

    def _make_fork(self, resources: Resources) -> None:
        """Prepare that all other streams wait for the first."""
        self._fork: list[Call] = []
        if not self._bound.stages_inputs or not self._others:
            return
        first = self._streams[0]
        event = resources.event(first.device)
        self._fork.append(partial(runtime.setDevice, first.device))
        self._fork.append(partial(runtime.eventRecord, event, first.ptr))
        # RAW: the other streams read staged inputs, or copy out what the graph has computed.
        self._fork += [partial(runtime.streamWaitEvent, s.ptr, event) for s in self._others]

    def _make_join(self, resources: Resources, done: int) -> None:
        """Prepare the end: every stream is joined to the first, whose event stands for all."""
        first = self._streams[0]
        self._join: list[Call] = []
        for stream in self._others:
            event = resources.event(stream.device)
            self._join.append(partial(runtime.setDevice, stream.device))
            self._join.append(partial(runtime.eventRecord, event, stream.ptr))
            # The run has ended, and its buffers may be used again, when every stream has.
            self._join.append(partial(runtime.streamWaitEvent, first.ptr, event))
        self._join.append(partial(runtime.setDevice, first.device))
        self._join.append(partial(runtime.eventRecord, done, first.ptr))

    def mark_begin(self, streams: tuple[Any, ...] | None) -> None:
        """Record, on the caller's streams, the point that the run comes after.

        `streams` is the caller's stream of each device; None takes the current ones.
        """
        for device, event in self._events.items():
            with OnDevice(device):
                ptr = (get_current_stream() if streams is None else streams[device]).ptr
                runtime.eventRecord(event, ptr)

    def caller_is_done(self) -> bool:
        """Whether the device has passed what `mark_begin` marked, or is lost; never blocks."""
        return all(runtime.eventQuery(event) != NOT_READY for event in self._events.values())

    def enter(self, inputs: Mapping[str, Any]) -> None:
        """Enqueue what comes before the steps."""
        for wait in self._begin:
            wait()
        if not self._bound.stages_inputs:
            return
        stream = self._streams[0].ptr
        for name, array in inputs.items():
            if array.nbytes:
                runtime.memcpyAsync(
                    self._bound.staged[name].ptr, array.data.ptr, array.nbytes,
                    runtime.memcpyDefault, stream,
                )  # fmt: skip
        if not self._replay:
            self._all_after_first()

    def _all_after_first(self) -> None:
        for call in self._fork:
            call()

    def leave(self, made: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Enqueue the copies of the outputs."""
        if self._replay:
            self._all_after_first()
        self.outputs.copy(made, inputs)

    def join(self) -> None:
        """Enqueue the end."""
        for call in self._join:
            call()
