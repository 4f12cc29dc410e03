"""`cond` whose bodies are nets: their steps are bound as those of any plan."""

from __future__ import annotations

from collections.abc import Callable

from asyncnet_gpu.backends.cuda.context import StepContext
from asyncnet_gpu.backends.cuda.nested import bind_control
from asyncnet_gpu.ops.base import Arrays, Attrs
from asyncnet_gpu.ops.control import bind_cond


def bind(
    context: StepContext, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Callable[[], object] | None:
    """Return the launch, or None for a body that is a function."""
    return bind_control(
        bind_cond, (attrs["then"], attrs["otherwise"]), context, ins, outs, attrs, scratch
    )
