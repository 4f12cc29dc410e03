"""What a program takes from the driver, so that it can be given back whole, also half-way."""

from __future__ import annotations

import contextlib
from typing import Any, final

import cupy
from cupy.cuda import runtime

from asyncnet_gpu.backends.cuda.arrays import OwnedMemory
from asyncnet_gpu.backends.cuda.context import Stream
from asyncnet_gpu.backends.cuda.device import OnDevice, stream_priority
from asyncnet_gpu.backends.cuda.faults import (
    NOT_READY,
    device_error,
    driver_errors,
    is_out_of_memory,
    out_of_memory,
)
from asyncnet_gpu.backends.cuda.temporaries import Temporaries


@final
class _Handle:
    """A stream handle in the form that CuPy takes without owning it."""

    def __init__(self, ptr: int) -> None:
        self._ptr = ptr

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._ptr


@final
class Resources:
    """Streams, events, memory and graphs of one slot.

    Parameters
    ----------
    where
        For errors: which net.
    planned_bytes
        For the error of a device without room.
    """

    def __init__(self, where: str, planned_bytes: int) -> None:
        self.where = where
        self.planned_bytes = planned_bytes
        self.streams: list[Stream] = []
        self.temporaries = Temporaries()
        self._events: list[tuple[int, int]] = []  # device, event
        self._graphs: list[int] = []
        self._blocks: list[OwnedMemory] = []

    def stream(self, device: int, priority: int) -> Stream:
        """Make a non-blocking stream: it does not order itself with the legacy stream."""
        with OnDevice(device):
            try:
                ptr = runtime.streamCreateWithPriority(
                    runtime.streamNonBlocking, stream_priority(priority)
                )
            except driver_errors() as error:
                raise device_error(
                    self.where, "a stream cannot be made", error, "Lower max_streams or slots."
                ) from error
            self.streams.append(Stream(device, cupy.cuda.Stream.from_external(_Handle(ptr))))
        return self.streams[-1]

    def event(self, device: int, *, timed: bool = False) -> int:
        """Make an event; without timing unless asked, which makes record and wait cheaper."""
        flags = runtime.eventDefault if timed else runtime.eventDisableTiming
        with OnDevice(device):
            try:
                event = int(runtime.eventCreateWithFlags(flags))
            except driver_errors() as error:
                raise device_error(
                    self.where, "an event cannot be made", error, "Lower max_streams or slots."
                ) from error
        self._events.append((device, event))
        return event

    def memory(self, nbytes: int, device: int) -> Any:
        """Allocate device memory that this slot owns: freed by `close`, whoever still names it."""
        try:
            block = OwnedMemory(nbytes, device)
        except driver_errors() as error:
            if not is_out_of_memory(error):
                raise device_error(self.where, "memory cannot be allocated", error) from error
            with OnDevice(device):
                raise out_of_memory(self.where, nbytes, self.planned_bytes, error) from error
        self._blocks.append(block)
        return block.block

    def instantiated(self, graph: int) -> int:
        """Make a graph executable; the definition is given back."""
        try:
            made = int(runtime.graphInstantiate(graph))
        finally:
            runtime.graphDestroy(graph)
        self._graphs.append(made)
        return made

    def idle(self) -> bool:
        """Whether nothing is under way on any stream, as far as the driver can still tell."""
        return all(runtime.streamQuery(s.ptr) != NOT_READY for s in self.streams)

    def close(self) -> None:
        """Give everything back, graphs first; errors of a lost device do not stop it."""
        # Taken first: from here on `idle` asks nothing of what is being destroyed.
        streams, self.streams = self.streams, []
        for graph in self._graphs:
            with contextlib.suppress(*driver_errors()):
                runtime.graphExecDestroy(graph)
        for stream in streams:
            if stream.handle is not None:
                with contextlib.suppress(Exception):  # nvmath's error class on a lost device
                    stream.handle.close()
                stream.handle = None
            if stream.dnn_handle is not None:
                with contextlib.suppress(Exception):  # cuDNN's error class on a lost device
                    stream.dnn_handle.close()
                stream.dnn_handle = None
        for device, event in self._events:
            with contextlib.suppress(*driver_errors()), OnDevice(device):
                runtime.eventDestroy(event)
        for stream in streams:
            with contextlib.suppress(*driver_errors()), OnDevice(stream.device):
                runtime.streamDestroy(stream.ptr)
        for block in self._blocks:
            block.free()
        self._graphs, self._events, self._blocks = [], [], []
        self.temporaries.close()
