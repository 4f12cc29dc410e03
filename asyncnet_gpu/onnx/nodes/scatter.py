"""Elements put by index: the older Scatter, caches of keys and values, unpooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


def _scatter(context: NodeContext, node: Any) -> Any:
    return context.result("scatter_elements", *context.tensors(), axis=context.attr_int("axis", 0))


def _tensor_scatter(context: NodeContext, node: Any) -> Any:
    """Write the update into the cache from a place on that each batch item has."""
    cache, update, begins = context.x(0), context.x(1), context.maybe(2)
    rank, mode = len(cache.shape), context.attr_str("mode", "linear")
    axis = context.attr_int("axis", -2) % rank
    if mode not in ("linear", "circular") or axis == 0 or len(update.shape) != rank:
        context.fail("attributes", expected="mode linear or circular, an axis after the batch",
                     got=f"mode {mode}, axis {axis}", remedy="The file is broken.")  # fmt: skip
    steps = np.arange(update.shape[axis]).reshape(-1, *[1] * (rank - 1 - axis))
    if begins is None:
        places: Any = steps
    else:
        whole = context.emit("cast", begins, dtype="int64")
        places = context.emit("add", context.emit("reshape", whole, shape=(-1, *[1] * (rank - 1))),
                              steps)  # fmt: skip
    if mode == "circular":
        places = context.emit("mod", places, np.asarray(cache.shape[axis], np.int64))
    spread = context.emit("broadcast_to", places, shape=tuple(update.shape))
    return context.result("scatter_elements", cache, spread, update, axis=axis)


def _unpooled(context: NodeContext, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that pooled to `shape`."""
    kernel = context.attr_ints("kernel_shape")
    n = len(kernel)
    strides = context.attr_ints("strides", (1,) * n)
    pads = context.attr_ints("pads", (0,) * 2 * n)
    if len(shape) != n + 2 or len(strides) != n or len(pads) != 2 * n:
        context.fail("attributes", expected=f"{len(shape) - 2} extents", got=n,
                     remedy="The file is broken.")  # fmt: skip
    space = [(shape[i + 2] - 1) * strides[i] - pads[i] - pads[n + i] + kernel[i] for i in range(n)]
    return (*shape[:2], *space)


def _max_unpool(context: NodeContext, node: Any) -> Any:
    x, places = context.x(0), context.x(1)
    shape = _unpooled(context, tuple(x.shape))
    wanted = context.known_ints(2, "output_shape") if context.has(2) else shape
    dtype = np.dtype(x.dtype)
    nbytes = context.importer.budget.tensor(shape, dtype.itemsize, context.where)
    context.importer.budget.constant(nbytes, context.where)
    flat = context.emit(
        "scatter_elements", np.zeros(math.prod(shape), dtype),
        context.emit("reshape", places, shape=(-1,)), context.emit("reshape", x, shape=(-1,)),
        axis=0,
    )  # fmt: skip
    if wanted == shape:
        return context.result("reshape", flat, shape=shape)
    # Places count in the shape that follows from the attributes; what is larger is filled up.
    whole = context.emit("reshape", flat, shape=shape)
    behind = [w - s for w, s in zip(wanted, shape, strict=True)]
    return context.result("pad", whole, pads=(*[0] * len(shape), *behind))


NODES = {
    "MaxUnpool": OnnxMapping(since=9, build=_max_unpool),
    "Scatter": OnnxMapping(since=9, until=10, build=_scatter),
    "TensorScatter": OnnxMapping(since=24, build=_tensor_scatter),
}
