"""Operators as PyTorch calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from ..nets.plain import borders, pair
from ..nets.workload import Workload
from .candidate import NotHereError
from .tasks import Task, tasks_of


def _conv2d(
    xp: Any, x: Any, w: Any, b: Any = None, *, strides: Any, pads: Any, groups: int, **_: Any
) -> Any:
    (top, bottom), (left, right) = borders(pads)
    if (top, left) != (bottom, right):
        x, top, left = functional.pad(x, (left, right, top, bottom)), 0, 0
    return functional.conv2d(x, w, b, pair(strides), (top, left), groups=groups)


def _pool(
    xp: Any, x: Any, *, largest: bool, kernel: Any, strides: Any, pads: Any,
    count_include_pad: bool = False, **_: Any,
) -> Any:  # fmt: skip
    padding = tuple(before for before, _ in borders(pads))
    if largest:
        return functional.max_pool2d(x, kernel, pair(strides), padding)
    return functional.avg_pool2d(
        x, kernel, pair(strides), padding, count_include_pad=count_include_pad
    )


def _sum(xp: Any, x: Any, *, axes: Any = None, keepdims: bool = False) -> Any:
    return x.sum() if axes is None else x.sum(axes, keepdim=keepdims)


def _pad(xp: Any, x: Any, *, pads: Any, mode: str, value: float, axes: Any = None) -> Any:
    n = x.ndim
    widths = [w for axis in reversed(range(n)) for w in (pads[axis], pads[axis + n])]
    if mode == "edge":
        return functional.pad(x, widths[:4], mode="replicate")
    return functional.pad(x, widths, value=value)


def _slice(xp: Any, x: Any, *, starts: Any, ends: Any, axes: Any, steps: Any = None) -> Any:
    cut = [slice(None)] * x.ndim
    for k, axis in enumerate(axes):
        cut[axis] = slice(starts[k], ends[k], None if steps is None else steps[k])
    return x[tuple(cut)]


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda xp, *tensors: function(*tensors)


TABLE: Mapping[str, Callable[..., Any]] = {
    **{
        name: _same(getattr(torch, name))
        for name in ("add", "sub", "mul", "div", "sqrt", "square", "exp", "log", "tanh", "relu",
                     "sigmoid", "matmul")
    },
    "softmax": lambda xp, x, *, axis: torch.softmax(x, axis),
    "layer_norm": lambda xp, x, s, b, *, axis, epsilon: functional.layer_norm(
        x, x.shape[-1:], s, b, epsilon
    ),
    "gelu": lambda xp, x, *, approximate: functional.gelu(x, approximate=approximate),
    "clip": lambda xp, x, *, low, high: torch.clamp(x, low, high),
    "conv2d": _conv2d,
    "max_pool": lambda xp, x, **attrs: _pool(xp, x, largest=True, **attrs),
    "average_pool": lambda xp, x, **attrs: _pool(xp, x, largest=False, **attrs),
    "global_average_pool": lambda xp, x: x.mean((2, 3), keepdim=True),
    "concat": lambda xp, *tensors, axis: torch.cat(tensors, axis),
    "reshape": lambda xp, x, *, shape: x.reshape(shape),
    "transpose": lambda xp, x, *, axes: x.permute(axes),
    "gather": lambda xp, x, indices, *, axis: x[indices],
    "slice": _slice,
    "pad": _pad,
    "reduce_sum": _sum,
    "argmax": lambda xp, x, *, axis, keepdims, **_: x.argmax(axis, keepdim=keepdims),
}  # fmt: skip


def torch_tasks(workload: Workload) -> list[Task]:
    """Return the nodes of a net as PyTorch calls."""
    names = {node.op.name for node in workload.net.definitions}
    if missing := sorted(names - TABLE.keys()):
        raise NotHereError(f"PyTorch has no counterpart of {', '.join(missing)} here")
    return tasks_of(workload.net, torch, table=TABLE, hand=workload.hand)


def tensors_of(workload: Workload, device: torch.device) -> dict[str, torch.Tensor]:
    """Return inputs and parameters as tensors on a device."""
    return {k: torch.from_numpy(v.copy()).to(device) for k, v in workload.arrays().items()}
