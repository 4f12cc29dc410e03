"""The error of a failed run: what failed first, where it was, who wrote it, what else failed."""

from __future__ import annotations

from asyncnet_gpu.backends.base import Execution, StepError
from asyncnet_gpu.errors import DeviceError
from asyncnet_gpu.plan.types import Plan

_ERROR_CLASSES: dict[type[BaseException], type[DeviceError]] = {}


def _error_class(kind: type[BaseException]) -> type[DeviceError]:
    if kind not in _ERROR_CLASSES:
        _ERROR_CLASSES[kind] = _make_error_class(kind)
    return _ERROR_CLASSES[kind]


def _make_error_class(kind: type[BaseException]) -> type[DeviceError]:
    """Return a `DeviceError` that is also a `kind`, so that users can catch by their own class."""
    if not issubclass(kind, Exception) or issubclass(kind, DeviceError):
        return kind if issubclass(kind, DeviceError) else DeviceError
    try:
        made = type("DeviceError", (DeviceError, kind), {"__module__": DeviceError.__module__})
        made("probe")
    except Exception:  # the user's class may refuse to be subclassed in any way it likes
        return DeviceError
    return made


def describe_step(plan: Plan, index: int) -> str:
    """Return operator, node, step, stream, device and shapes of a step in one line."""
    step = plan.steps[index]
    node = plan.node_of(step)
    reads = ", ".join(f"{n}: {plan.graph.blobs[n].spec}" for n in node.reads)
    writes = ", ".join(f"{n}: {plan.graph.blobs[n].spec}" for n in node.writes)
    where = f"{plan.device_name(node.device)}/{step.stream}"
    return f"{node.op.kind} {node.name!r} (step {index} on {where}; ({reads}) -> ({writes}))"


def blame(plan: Plan, slot: int, execution: Execution) -> BaseException:
    """Return the error of the first step that failed in time, the others attached as notes."""
    errors = sorted(execution.errors, key=lambda e: e.at_s)
    first = errors[0]
    if not isinstance(first.error, Exception):
        return first.error  # KeyboardInterrupt, SystemExit: not ours to wrap
    error = _compose(plan, slot, first)
    for later in errors[1:]:
        where = "the run" if later.step < 0 else describe_step(plan, later.step)
        error.add_note(f"also failed: {where}: {type(later.error).__name__}: {later.error}")
    return error


def _compose(plan: Plan, slot: int, failed: StepError) -> BaseException:
    cause = failed.error
    if failed.step < 0:
        return cause
    node = plan.node_of(plan.steps[failed.step])
    notes = "".join(f" ({note})" for note in getattr(cause, "__notes__", ()))
    text = (
        f"[{plan.device_name(node.device)}] {describe_step(plan, failed.step)} failed in slot "
        f"{slot} of net {plan.graph.name!r}: expected it to finish, got "
        f"{type(cause).__name__}: {cause}{notes}. Added at {node.line}."
    )
    error = _error_class(type(cause))(text)
    error.__cause__ = cause
    return error
