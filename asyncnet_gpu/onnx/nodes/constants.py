"""Nodes that are known once shapes are: constants, shapes, ranges; they never reach the net."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.onnx.narrow import Narrow
from asyncnet_gpu.onnx.nodes.random import dropout
from asyncnet_gpu.onnx.tensors import element_dtype
from asyncnet_gpu.ops.base import OnnxMapping


def _constant(context: NodeContext, node: Any) -> Any:
    names = [n for n in context.attribute_names if n.startswith(("value", "sparse_value"))]
    if len(names) != 1:
        context.fail("attributes", expected="exactly one value", got=names,
                     remedy="The file is broken.")  # fmt: skip
    (name,) = names
    if name in ("value", "sparse_value"):
        return context.attr_tensor(name)
    value = context.plain(name)
    if name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    if name in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    if name in ("value_string", "value_strings"):
        return texts(value)
    return context.unsupported(f"attribute {name[:200]!r}")


def texts(value: str | tuple[str, ...]) -> np.ndarray[Any, Any]:
    """Return texts as an array of strings."""
    if isinstance(value, str):
        return np.asarray(value, object)
    made = np.empty(len(value), object)
    made[:] = value
    return made


def _filled(context: NodeContext, shape: tuple[int, ...], value: Any, dtype: np.dtype[Any]) -> Any:
    nbytes = context.importer.budget.tensor(shape, dtype.itemsize, context.where)
    if nbytes > context.importer.budget.limits.max_fold_bytes:
        return context.emit("broadcast_to", np.asarray(value, dtype), shape=shape)
    context.importer.budget.constant(nbytes, context.where)
    return np.full(shape, value, dtype)


def _constant_of_shape(context: NodeContext, node: Any) -> Any:
    value = context.attr_tensor("value") if context.has_attr("value") else np.zeros(1, np.float32)
    if isinstance(value, Narrow):
        fill = np.asarray(value.codes).reshape(-1)[0]
        codes = _filled(context, context.known_ints(0, "shape"), fill, value.type.codes)
        return Narrow(codes, value.element_type)
    if value.size != 1:
        context.fail("attribute 'value'", expected="one element", got=value.size,
                     remedy="The file is broken.")  # fmt: skip
    shape = context.known_ints(0, "shape")
    return _filled(context, shape, value.reshape(()), value.dtype)


def _shape(context: NodeContext, node: Any) -> Any:
    shape = context.x().shape
    start = context.attr_int("start", 0)
    end = context.attr_int("end", len(shape))
    return np.asarray(shape[slice(start, end)], np.int64)


def _size(context: NodeContext, node: Any) -> Any:
    return np.asarray(math.prod(context.x().shape), np.int64)


def _range(context: NodeContext, node: Any) -> Any:
    start, limit, delta = (context.known(i, "range").reshape(()) for i in range(3))
    if delta == 0 or not np.isfinite([start, limit, delta]).all():
        context.fail("delta", expected="finite numbers, delta other than 0", got=delta,
                     remedy="The file is broken.")  # fmt: skip
    size = (limit.item() - start.item()) / delta.item()
    count = max(0, math.ceil(size))
    nbytes = context.importer.budget.tensor((count,), start.dtype.itemsize, context.where)
    context.importer.budget.constant(nbytes, context.where)
    return (start + np.arange(count).astype(start.dtype) * delta).astype(start.dtype)


def _eye_like(context: NodeContext, node: Any) -> Any:
    like = context.x()
    dtype = np.dtype(like.dtype)
    if context.has_attr("dtype"):
        dtype = element_dtype(context.attr_int("dtype"), context.where)
    if len(like.shape) != 2:
        context.fail("input 0", expected="a matrix", got=list(like.shape),
                     remedy="The file is broken.")  # fmt: skip
    nbytes = context.importer.budget.tensor(like.shape, dtype.itemsize, context.where)
    context.importer.budget.constant(nbytes, context.where)
    rows, columns = like.shape
    k = context.attr_int("k", 0)
    return np.eye(rows, columns, max(-rows, min(columns, k)), dtype)


def _dropout(context: NodeContext, node: Any) -> Any:
    """Pass the blob on; drop elements in training only."""
    training = context.opset >= 12 and context.has(2)
    if training and bool(context.known(2, "training_mode").reshape(())):
        ratio = context.known(1, "ratio") if context.has(1) else np.asarray(0.5)
        if float(ratio.reshape(())) != 0.0:
            return dropout(context, float(ratio.reshape(())))
    (kept,) = context.result("identity", context.x())[:1]
    if not context.wants(1):
        return kept
    dtype = np.dtype("bool") if context.opset >= 10 else np.dtype(kept.dtype)
    return kept, _filled(context, kept.shape, True, dtype)


def _identity(context: NodeContext, node: Any) -> Any:
    value = context.value(0)
    if value is None or isinstance(value, (list, Narrow)):
        return (value,)
    return context.result("identity", value)


NODES = {
    "Constant": OnnxMapping(build=_constant),
    "ConstantOfShape": OnnxMapping(since=9, build=_constant_of_shape),
    "Dropout": OnnxMapping(build=_dropout),
    "EyeLike": OnnxMapping(since=9, build=_eye_like),
    "Identity": OnnxMapping(build=_identity),
    "Range": OnnxMapping(since=11, build=_range),
    "Shape": OnnxMapping(build=_shape),
    "Size": OnnxMapping(build=_size),
}
