"""Arrays of the caller on the way in, blobs as arrays over planned memory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import cupy
import numpy as np
from cupy.cuda import memory, runtime

from asyncnet_gpu.backends.cuda.copy import copy_between_devices
from asyncnet_gpu.backends.cuda.device import OnDevice, n_devices
from asyncnet_gpu.backends.cuda.faults import driver_errors
from asyncnet_gpu.errors import ShapeError, message
from asyncnet_gpu.graph import BlobInfo
from asyncnet_gpu.specs import TensorSpec

#: Kernels may read 16 bytes at a time from where a blob begins.
INPUT_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class Adopted:
    """An input on its device, and how to come after whatever is still writing it.

    Attributes
    ----------
    array
        C-contiguous, of the blob's shape and dtype.
    streams
        The caller's current stream of every device at the time of the call. What the caller has
        enqueued on it writes the array; outputs come from the pool of that stream.
    source
        What the array shares memory with or is still being copied from; kept until the run ends.
    """

    array: Any
    streams: tuple[Any, ...]
    source: object


def current_streams() -> tuple[Any, ...]:
    """Return the calling thread's current stream of every device."""
    return tuple([cupy.cuda.get_current_stream(d) for d in range(n_devices())])


def adopt(value: object, spec: TensorSpec, device: int) -> Adopted:
    """Return `value` on `device`, without a copy where it is there already.

    A copy goes to the caller's current stream of that device, so one event on this stream stands
    for the producer and for the copy.
    """
    streams = current_streams()
    array: Any = value
    if type(value) is not cupy.ndarray or array.data.device_id != device:
        array = _bring(value, spec, device, streams)
    if array.shape != spec.shape or array.dtype != spec.dtype:
        raise _misfit(array, spec)
    if not array.flags.c_contiguous or array.data.ptr % INPUT_ALIGNMENT:
        with OnDevice(device), streams[device]:
            array = cupy.array(array, order="C", copy=True)
    return Adopted(array, streams, value)


def _misfit(array: Any, spec: TensorSpec) -> ShapeError:
    return ShapeError(
        message(
            "run", "input does not fit", expected=str(spec),
            got=f"{array.dtype.name}{list(array.shape)}",
            remedy="Shapes and dtypes are static in a plan: convert the array, or compile the net "
            "for this shape.",
        )
    )  # fmt: skip


def _bring(value: object, spec: TensorSpec, device: int, streams: tuple[Any, ...]) -> Any:
    """Return any array-like as a CuPy array on `device`."""
    on_device = _device_array(value)
    if on_device is None:
        host = _host_array(value, spec)
        if host.shape != spec.shape or host.dtype != spec.dtype:
            raise _misfit(host, spec)
        with OnDevice(device), streams[device]:
            # Through pinned memory that CuPy holds until the copy has ended; asynchronous.
            return cupy.asarray(np.ascontiguousarray(host).reshape(host.shape))
    if on_device.data.device_id == device:
        return on_device
    if on_device.shape != spec.shape or on_device.dtype != spec.dtype:
        raise _misfit(on_device, spec)
    return copy_between_devices(on_device, device, streams)


def _device_array(value: object) -> Any:
    """Return an array in device memory as CuPy, ordered after its producer; None for others."""
    if isinstance(value, cupy.ndarray):
        return value
    if isinstance(value, (bool, int, float, list, tuple, np.generic, np.ndarray)):
        return None
    if hasattr(value, "__dlpack_device__") and hasattr(value, "__dlpack__"):
        kind, device = value.__dlpack_device__()
        if kind not in (2, 13):  # kDLCUDA, kDLCUDAManaged
            return None
        try:
            # CuPy passes the current stream: the producer makes it wait for its own work.
            with OnDevice(device):
                return cupy.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            raise _not_shared(value, error) from error
    if hasattr(value, "__cuda_array_interface__"):
        return cupy.asarray(value)  # waits for the stream that the interface names
    return None


def _host_array(value: object, spec: TensorSpec) -> np.ndarray[Any, Any]:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (bool, int, float, list, tuple, np.generic)):
        return np.asarray(value, spec.dtype)
    try:
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise _not_shared(value, error) from error


def _not_shared(value: object, error: Exception) -> ShapeError:
    return ShapeError(
        message(
            "run", "input cannot be taken", expected="NumPy, CuPy or anything with DLPack",
            got=f"{type(value).__name__}: {error}",
            remedy="Convert it, or detach it from what computes its gradient.",
        )
    )  # fmt: skip


def to_numpy(array: Any) -> np.ndarray[Any, Any]:
    """Fetch an array in the order of the caller's current stream."""
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, Adopted):
        array = array.array
    with OnDevice(array.data.device_id):
        fetched: np.ndarray[Any, Any] = array.get()
    return fetched


def allocate(nbytes: int, device: int) -> Any:
    """Return device memory of its own, outside every pool; freed with the last reference."""
    with OnDevice(device):
        return memory.Memory(max(1, nbytes))


@final
class OwnedMemory:
    """Device memory with an explicit end, so that no forgotten reference keeps it.

    Attributes
    ----------
    block
        For arrays over it; not to be used after `free`.
    """

    def __init__(self, nbytes: int, device: int) -> None:
        with OnDevice(device):
            self._ptr = int(runtime.malloc(max(1, nbytes)))
        self._device = device
        self.block = memory.UnownedMemory(self._ptr, max(1, nbytes), None, device)

    def free(self) -> None:
        """Give the memory back; nothing on the device uses it any more."""
        ptr, self._ptr = self._ptr, 0
        if ptr:
            with contextlib.suppress(*driver_errors()), OnDevice(self._device):
                runtime.free(ptr)


def pretend_memory(address: int, nbytes: int, device: int) -> Any:
    """Return memory that is not there: arrays over it have shape, strides and an address."""
    return memory.UnownedMemory(address, max(1, nbytes), None, device)


def array_over(block: Any, start: int, spec: TensorSpec, strides: tuple[int, ...]) -> Any:
    """Return an array over a block of memory from byte `start` on."""
    pointer = memory.MemoryPointer(block, start)
    return cupy.ndarray(spec.shape, spec.dtype, memptr=pointer, strides=strides)


def blob_array(blob: BlobInfo, block: Any, start: int = 0) -> Any:
    """Return a blob as an array over the block in which its storage begins at byte `start`."""
    return array_over(block, start + blob.offset, blob.spec, blob.strides)


@cache
def _stream(device: int) -> int:
    """Return a stream for copies of ours: what the caller has enqueued does not hold them up."""
    with OnDevice(device):
        return int(runtime.streamCreateWithFlags(runtime.streamNonBlocking))


def upload(block: Any, value: np.ndarray[Any, Any], device: int) -> None:
    """Fill device memory from a NumPy array and wait for it."""
    host = np.ascontiguousarray(value)
    _copy(block.ptr, host.ctypes.data, host.nbytes, runtime.memcpyHostToDevice, device)


def download(block: Any, spec: TensorSpec, device: int) -> np.ndarray[Any, Any]:
    """Return the first bytes of device memory as a fresh NumPy array."""
    host = np.empty(spec.shape, spec.dtype)
    _copy(host.ctypes.data, block.ptr, host.nbytes, runtime.memcpyDeviceToHost, device)
    return host


def _copy(target: int, source: int, nbytes: int, kind: int, device: int) -> None:
    if nbytes:
        stream = _stream(device)
        with OnDevice(device):
            runtime.memcpyAsync(target, source, nbytes, kind, stream)
            # RAW by whoever comes next, on any stream or the host: the bytes have arrived.
            runtime.streamSynchronize(stream)
