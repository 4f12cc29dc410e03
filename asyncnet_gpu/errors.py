"""The exception tree; every message reads ``[where] what: expected X, got Y. Remedy``.

Whose fault it is shows in the class: the net as written (`NetError`, `ShapeError`), a file
(`OnnxImportError`), the plan (`PlanError`), the device (`DeviceError`), the caller's time or queue
(`DeadlineExceeded`, `QueueFull`, `RunCancelled`), or this library (`InternalError`,
`VerificationError`).
"""

from __future__ import annotations


class AsyncNetError(Exception):
    """Base of every error that this library raises on purpose."""


class NetError(AsyncNetError, ValueError):
    """The net as written is wrong: unknown name, duplicate name, cycle, barrier out of place."""


class ShapeError(AsyncNetError, ValueError):
    """Shapes, dtypes or attributes of an operator do not fit."""


class UnsupportedOpError(AsyncNetError, NotImplementedError):
    """No backend in question can carry out this operator, dtype or attribute."""


class OnnxImportError(AsyncNetError, ValueError):
    """A model file is broken, hostile or uses what is not supported; names node and attribute."""


class PlanError(AsyncNetError, ValueError):
    """An option is wrong: unknown mode or allocator, device that does not exist, no time at all."""


class VerificationError(AsyncNetError):
    """A plan failed its proof; the message is the counter-example."""


class DeviceError(AsyncNetError, RuntimeError):
    """An operator or the driver failed while a run was under way."""


class OutOfDeviceMemoryError(DeviceError, MemoryError):
    """The device has no room: asked, free and planned bytes are in the message."""


class DeadlineExceeded(AsyncNetError, TimeoutError):
    """A run, or a wait for one, took longer than its limit."""


class QueueFull(AsyncNetError):
    """All slots are busy, the queue is at its bound and the policy is ``"raise"``."""


class RunCancelled(AsyncNetError):
    """The run was cancelled before it finished."""


class InternalError(AsyncNetError, RuntimeError):
    """An invariant of this library broke: please report it with the plan."""


def message(where: str, what: str, *, expected: object, got: object, remedy: str) -> str:
    """Compose an error text in the one form used everywhere.

    >>> message("plan", "max_streams=0", expected="at least 1", got=0, remedy="Pass max_streams=1.")
    '[plan] max_streams=0: expected at least 1, got 0. Pass max_streams=1.'
    """
    return f"[{where}] {what}: expected {expected}, got {got}. {remedy}"
