"""`conv` through cuDNN, where it is installed; ``conv.cu`` does the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncnet_gpu.backends.cuda.context import StepContext
from asyncnet_gpu.backends.cuda.dnn_graph import ConvKey
from asyncnet_gpu.ops.base import Arrays, Attrs
from asyncnet_gpu.ops.conv_shape import conv_shape

#: What cuDNN's plans assume of every tensor, in bytes.
_ALIGNMENT = 16


def bind(
    context: StepContext, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Callable[[], object] | None:
    """Return a launch of cuDNN, or None for what it does not take."""
    (out,) = outs
    dnn = context.dnn(out) if out.size else None
    if dnn is None:
        return None
    window = conv_shape(ins, attrs, where="conv", n_spatial=None).window
    flat = len(window.kernel) == 1  # cuDNN has two or three spatial axes
    unit = (1,) if flat else ()
    key = ConvKey(
        dtype=out.dtype.name,
        x=_layout(ins[0], flat), w=_layout(ins[1], flat), out=_layout(out, flat),
        bias=len(ins) > 2,
        begin=(0,) * flat + window.begin, end=(0,) * flat + window.end,
        strides=unit + window.strides, dilations=unit + window.dilations,
    )  # fmt: skip
    named = dict(zip(("x", "w", "bias"), ins, strict=False), out=out)
    addresses = {name: array.data.ptr for name, array in named.items()}
    if any(address % _ALIGNMENT for address in addresses.values()):
        return None
    return dnn.bind(key, addresses)


def _layout(array: Any, flat: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return extents and strides in elements, with a unit axis before a single spatial one."""
    shape = tuple(array.shape)
    strides = tuple([stride // array.itemsize for stride in array.strides])
    if flat:
        shape = (*shape[:2], 1, shape[2])
        strides = (*strides[:2], shape[3] * strides[2], strides[2])
    return shape, strides
