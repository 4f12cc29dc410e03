"""Errors of the driver in words: what failed, whether the device is lost, what to do."""

from __future__ import annotations

from typing import Any

import cupy
from cupy.cuda import driver, memory, runtime

from asyncnet_gpu.errors import DeviceError, OutOfDeviceMemoryError, message

#: Answers of a query: all done, and not yet.
SUCCESS = 0
NOT_READY = 600
_OUT_OF_MEMORY = 2
_CAPTURE_INVALIDATED = 901

#: Errors after which every later call on the device fails (CUDA runtime API, cudaError enum).
_STICKY = frozenset({46, 214, 220, 700, 702, 710, *range(714, 720), 721, 999})

_RESTART = (
    "Whatever was on the device is gone: start a new process, and run it under compute-sanitizer "
    "to find the kernel."
)


def status_of(error: BaseException) -> int | None:
    """Return the driver's or runtime's code behind an error, or None."""
    if isinstance(error, (runtime.CUDARuntimeError, driver.CUDADriverError)):
        return int(error.status)
    return None


def is_lost(error: BaseException) -> bool:
    """Whether the device cannot be used any more in this process."""
    return status_of(error) in _STICKY


def is_invalidated(error: BaseException) -> bool:
    """Whether a capture ended because of a call that was not its own."""
    at: BaseException | None = error
    while at is not None:
        if status_of(at) == _CAPTURE_INVALIDATED:
            return True
        at = at.__cause__
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that the device has no room."""
    return isinstance(error, memory.OutOfMemoryError) or status_of(error) == _OUT_OF_MEMORY


def from_status(status: int) -> Exception:
    """Return the error of a status code, with its name and text."""
    error: Exception = runtime.CUDARuntimeError(status)
    return error


def device_error(where: str, what: str, error: BaseException, remedy: str = "") -> DeviceError:
    """Wrap an error of CuPy or the driver; a lost device gets its own remedy."""
    if is_lost(error):
        return DeviceError(
            message(where, "the device is lost", expected="a working device",
                    got=f"{error} ({what})", remedy=_RESTART)
        )  # fmt: skip
    if is_out_of_memory(error):
        return OutOfDeviceMemoryError(
            message(where, what, expected="room on the device", got=str(error),
                    remedy="Free arrays, lower slots=, or split the net.")
        )  # fmt: skip
    return DeviceError(
        message(where, what, expected="success", got=str(error),
                remedy=remedy or "The executable can be used again; run it once more.")
    )  # fmt: skip


def explained(where: str, error: BaseException) -> BaseException:
    """Return an error that a step may fail with: the driver's in words, the user's as it is."""
    if status_of(error) is not None or isinstance(error, memory.OutOfMemoryError):
        wrapped = device_error(where, "a call failed", error)
        wrapped.__cause__ = error
        return wrapped
    return error


def out_of_memory(where: str, asked: int, planned: int, error: BaseException) -> DeviceError:
    """Return the error for a slot that does not fit: asked, free and planned bytes."""
    free, total = _free_bytes()
    return OutOfDeviceMemoryError(
        message(
            where, "the device has no room for a slot",
            expected=f"{asked:,} bytes ({planned:,} planned for this slot)",
            got=f"{free:,} free of {total:,} ({error})",
            remedy="Lower slots=, free CuPy's pool (cupy.get_default_memory_pool()"
            ".free_all_blocks()), or split the net over devices.",
        )
    )  # fmt: skip


def _free_bytes() -> tuple[int, int]:
    try:
        free, total = runtime.memGetInfo()
    except runtime.CUDARuntimeError:  # a lost device cannot even say this
        return 0, 0
    return int(free), int(total)


def driver_errors() -> tuple[type[Any], ...]:
    """Classes that CuPy raises for failures of the driver."""
    return (runtime.CUDARuntimeError, driver.CUDADriverError, cupy.cuda.memory.OutOfMemoryError)
