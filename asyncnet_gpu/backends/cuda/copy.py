"""Copies: within a device, between peers, and through pinned memory where there are no peers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cupy
from cupy.cuda import runtime

from asyncnet_gpu.backends.cuda.device import OnDevice, peer_access

Call = Callable[[], object]


def pinned_memory(nbytes: int) -> Any:
    """Return pinned host memory from CuPy's pool, which takes it back with the last reference.

    Not from the driver: freeing waits for all devices, and the last reference may lie in a cycle
    that the collector finds in the middle of another run.
    """
    return cupy.cuda.alloc_pinned_memory(nbytes)


def contiguous_copy(
    target: int, device: int, source: int, source_device: int, nbytes: int, stream: int
) -> Call:
    """Return a call that copies bytes of one address to another on a stream of `device`."""
    if device == source_device:
        return partial(
            runtime.memcpyAsync, target, source, nbytes, runtime.memcpyDeviceToDevice, stream
        )
    return partial(runtime.memcpyPeerAsync, target, device, source, source_device, nbytes, stream)


def staged_copy(target: int, source: int, nbytes: int, stream: int) -> tuple[tuple[Call, ...], Any]:
    """Return calls that copy through pinned host memory on one stream, and that memory.

    For devices that cannot reach one another; the second part follows the first in stream order.
    """
    pinned = pinned_memory(nbytes)
    calls = (
        partial(
            runtime.memcpyAsync, pinned.ptr, source, nbytes, runtime.memcpyDeviceToHost, stream
        ),
        partial(
            runtime.memcpyAsync, target, pinned.ptr, nbytes, runtime.memcpyHostToDevice, stream
        ),
    )
    return calls, pinned


def copy_between_devices(array: Any, device: int, streams: tuple[Any, ...]) -> Any:
    """Copy a caller's array to another device, in order of the caller's streams of both."""
    source_device = array.data.device_id
    with OnDevice(source_device), streams[source_device]:
        array = cupy.ascontiguousarray(array)
        ready = cupy.cuda.Event(block=False, disable_timing=True)
        ready.record(streams[source_device])
    with OnDevice(device), streams[device]:
        made = cupy.ndarray(array.shape, array.dtype)
        # RAW: the copy runs on the target's stream and must not overtake the producer on the other.
        streams[device].wait_event(ready)
        peer_access(device, source_device)
        if array.nbytes:
            runtime.memcpyPeerAsync(
                made.data.ptr, device, array.data.ptr, source_device, array.nbytes,
                streams[device].ptr,
            )  # fmt: skip
        done = cupy.cuda.Event(block=False, disable_timing=True)
        done.record(streams[device])
    with OnDevice(source_device):
        # WAR: the pool of the source's stream may hand its bytes out once the array is dropped.
        streams[source_device].wait_event(done)
    return made
