"""Normalisations that ONNX does not define as functions of simpler nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


def _batch_norm(context: NodeContext, node: Any) -> Any:
    if context.opset >= 14 and context.attr_int("training_mode", 0):
        return _batch_norm_training(context)
    if context.opset < 9 and not context.attr_int("spatial", 1):
        context.unsupported("BatchNormalization with statistics for every position")
    x, *stats = context.tensors()
    stats = [_like(context, s, x) for s in stats]
    made = context.result("batch_norm", x, *stats, epsilon=context.attr_float("epsilon", 1e-5))
    # Older operator sets list outputs of training: what inference makes of them are the inputs.
    return (*made, stats[2], stats[3], stats[2], stats[3])[: context.n_outputs]


def _like(context: NodeContext, value: Any, x: Any) -> Any:
    same = value.dtype == x.dtype
    return value if same else context.emit("cast", value, dtype=np.dtype(x.dtype).name)


def _batch_norm_training(context: NodeContext) -> Any:
    x, scale, bias, mean, var = context.tensors()
    axes = tuple(i for i in range(len(x.shape)) if i != 1)
    now_mean = context.emit("reduce_mean", x, axes=axes, keepdims=False)
    shape = (-1, *[1] * (len(x.shape) - 2))
    away = context.emit("sub", x, context.emit("reshape", now_mean, shape=shape))
    square = context.emit("mul", away, away)
    now_var = context.emit("reduce_mean", square, axes=axes, keepdims=False)
    made = context.result("batch_norm", x, scale, bias, now_mean, now_var,
                          epsilon=context.attr_float("epsilon", 1e-5))  # fmt: skip
    momentum = np.asarray(context.attr_float("momentum", 0.9), x.dtype)
    running = []
    for old, now in ((mean, now_mean), (var, now_var)):
        kept = context.emit("mul", _like(context, old, x), momentum)
        new = context.emit("mul", now, np.asarray(1 - momentum, x.dtype))
        running.append(context.emit("add", kept, new))
    return (*made, *running)[: context.n_outputs]


def _normalised_axes(context: NodeContext, x: Any) -> tuple[int, list[Any]]:
    """Return the first axis, and scale and bias spread over it and those behind it."""
    rank, axis = len(x.shape), context.attr_int("axis", -1)
    if not -rank <= axis < rank:
        context.fail("attribute 'axis'", expected=f"{-rank}..{rank - 1}", got=axis,
                     remedy="The file is broken.")  # fmt: skip
    shape = tuple(x.shape[axis % rank :])
    affine = []
    for value in (context.x(1), context.maybe(2)):
        if value is not None:
            whole = tuple(value.shape) == shape
            value = value if whole else context.emit("broadcast_to", value, shape=shape)
            affine.append(_like(context, value, x))
    return axis % rank, affine


def _layer_norm(context: NodeContext, node: Any) -> Any:
    x = context.x()
    axis, affine = _normalised_axes(context, x)
    epsilon = context.attr_float("epsilon", 1e-5)
    made = context.result("layer_norm", x, *affine, axis=axis, epsilon=epsilon)
    if not (context.wants(1) or context.wants(2)):
        return made
    axes = tuple(range(axis, len(x.shape)))
    wide = context.emit("cast", x, dtype="float32") if x.dtype == np.float16 else x
    mean = context.emit("reduce_mean", wide, axes=axes, keepdims=True)
    away = context.emit("sub", wide, mean)
    square = context.emit("mul", away, away)
    variance = context.emit("reduce_mean", square, axes=axes, keepdims=True)
    safe = context.emit("add", variance, np.asarray(epsilon, wide.dtype))
    return (*made, mean, context.emit("rsqrt", safe))[: context.n_outputs]


def _rms_norm(context: NodeContext, node: Any) -> Any:
    x = context.x()
    axis, affine = _normalised_axes(context, x)
    return context.result("rms_norm", x, *affine, axis=axis,
                          epsilon=context.attr_float("epsilon", 1e-5))  # fmt: skip


def _lp_normalization(context: NodeContext, node: Any) -> Any:
    x, axis, p = context.x(), context.attr_int("axis", -1), context.attr_int("p", 2)
    if p == 1:
        total = context.emit("reduce_sum", context.emit("abs", x), axes=(axis,), keepdims=True)
    else:
        square = context.emit("reduce_sum", context.emit("mul", x, x), axes=(axis,), keepdims=True)
        total = context.emit("sqrt", square)
    zero, one = np.zeros((), x.dtype), np.ones((), x.dtype)
    # A vector of zeros stays one.
    safe = context.emit("where", context.emit("equal", total, zero), one, total)
    return context.result("div", x, safe)


def _hardmax(context: NodeContext, node: Any) -> Any:
    x = context.x()
    axis = context.attr_int("axis", 1 if context.opset < 13 else -1)
    shape = tuple(x.shape)
    if context.opset < 13:
        rows = int(np.prod(shape[:axis], dtype=np.int64))
        x, axis = context.emit("reshape", x, shape=(rows, -1)), 1
    axis %= max(1, len(x.shape))
    _, place = context.emit("top_k", x, k=1, axis=axis)
    numbers = np.arange(x.shape[axis]).reshape(-1, *[1] * (len(x.shape) - 1 - axis))
    hit = context.emit("equal", place, numbers)
    return context.result(
        "reshape", context.emit("cast", hit, dtype=np.dtype(x.dtype).name), shape=shape
    )


NODES = {
    "BatchNormalization": OnnxMapping(build=_batch_norm),
    "Hardmax": OnnxMapping(build=_hardmax),
    "LayerNormalization": OnnxMapping(since=17, build=_layer_norm),
    "LpNormalization": OnnxMapping(build=_lp_normalization),
    "RMSNormalization": OnnxMapping(since=23, build=_rms_norm),
}
