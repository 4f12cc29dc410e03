"""Random numbers: drawn anew in every run, the same sequence for equal seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.onnx.tensors import element_dtype
from asyncnet_gpu.ops.base import OnnxMapping


def _seed(context: NodeContext) -> int:
    """Return the node's seed, or one of its own where it has none."""
    if context.has_attr("seed"):
        given = context.plain("seed")  # a float, or an integer in Dropout
        if not isinstance(given, (int, float)):
            context.fail("attribute 'seed'", expected="a number", got=type(given).__name__,
                         remedy="The file is broken.")  # fmt: skip
        return int(np.asarray(given, np.float64).view(np.uint64))
    return context.importer.count("random")


def draw(context: NodeContext, op: str, shape: tuple[int, ...], dtype: str, **attrs: Any) -> Any:
    """Draw numbers and move the node's counter on."""
    context.importer.budget.tensor(shape, 8, context.where)
    counter = context.importer.counter(context)
    made = context.emit(op, counter, shape=shape, dtype=dtype, seed=_seed(context), **attrs)
    context.emit("assign_add", counter, np.ones((), np.uint64))
    return made


def _dtype(context: NodeContext, like: Any) -> str:
    if context.has_attr("dtype"):
        return element_dtype(context.attr_int("dtype"), context.where).name
    kind = np.dtype("float32" if like is None else like.dtype)
    return kind.name if kind.kind == "f" else "float32"


def _random(op: str, names: tuple[tuple[str, str, float], ...], *, like: bool) -> OnnxMapping:
    def build(context: NodeContext, node: Any) -> Any:
        source = context.x() if like else None
        shape = context.attr_ints("shape") if source is None else tuple(source.shape)
        attrs = {ours: context.attr_float(theirs, value) for ours, theirs, value in names}
        made = draw(context, op, shape, _dtype(context, source), **attrs)
        return context.result("identity", made)

    return OnnxMapping(build=build)


_UNIFORM = (("low", "low", 0.0), ("high", "high", 1.0))
_NORMAL = (("mean", "mean", 0.0), ("scale", "scale", 1.0))


def _multinomial(context: NodeContext, node: Any) -> Any:
    """Find where evenly drawn numbers fall between the sums of the probabilities."""
    x = context.x()
    dtype = element_dtype(context.attr_int("dtype", 6), context.where)
    if len(x.shape) != 2 or not x.shape[1]:
        context.fail("input 0", expected="(batch, classes)", got=list(x.shape),
                     remedy="The file is broken.")  # fmt: skip
    count, name = context.attr_int("sample_size", 1), np.dtype(x.dtype).name
    below = context.emit("cumsum", context.emit("softmax", x, axis=1), axis=1)
    drawn = draw(context, "random_uniform", (x.shape[0], count, 1), name)
    passed = context.emit("less_equal", context.emit("unsqueeze", below, axes=(1,)), drawn)
    total = context.emit("reduce_sum", context.emit("cast", passed, dtype="int64"), axes=(2,))
    # Rounding may leave the last sum a little below 1.
    return context.result("cast", context.emit("clip", total, low=0, high=x.shape[1] - 1),
                          dtype=dtype.name)  # fmt: skip


def dropout(context: NodeContext, ratio: float) -> Any:
    """Drop elements at random and scale up the others, as training does."""
    x = context.x()
    dtype = np.dtype(x.dtype)
    if not 0 <= ratio < 1 or math.isnan(ratio):
        context.fail("ratio", expected="0 up to below 1", got=ratio, remedy="The file is broken.")
    drawn = draw(context, "random_uniform", tuple(x.shape), "float32")
    kept = context.emit("greater_equal", drawn, np.asarray(ratio, np.float32))
    scale = np.asarray(1 / (1 - ratio)).astype(dtype)
    number = context.emit("mul", context.emit("cast", kept, dtype=dtype.name), scale)
    made = context.result("mul", x, number)
    return (*made, kept)[: max(1, context.n_outputs)]


NODES = {
    "Multinomial": OnnxMapping(since=7, build=_multinomial),
    "RandomNormal": _random("random_normal", _NORMAL, like=False),
    "RandomNormalLike": _random("random_normal", _NORMAL, like=True),
    "RandomUniform": _random("random_uniform", _UNIFORM, like=False),
    "RandomUniformLike": _random("random_uniform", _UNIFORM, like=True),
}
