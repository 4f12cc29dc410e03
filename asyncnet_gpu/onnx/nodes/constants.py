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
    if name in ("value_int", "value_ints"):
        read = context.attr_int if name == "value_int" else context.attr_ints
        return np.asarray(read(name), np.int64)
    if name in ("value_float", "value_floats"):
        read = context.attr_float if name == "value_float" else context.attr_floats
        return np.asarray(read(name), np.float32)
    if name in ("value_string", "value_strings"):
        return texts(context.attr_str(name) if name == "value_string" else context.attr_strs(name))
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
    begin, end, step = (context.number(i, "range") for i in range(3))
    if step == 0:
        context.fail("delta", expected="a number other than 0", got=step,
                     remedy="The file is broken.")  # fmt: skip
    start, delta = (context.known(i, "range").reshape(()) for i in (0, 2))
    count = max(0, math.ceil((end - begin) / step))
    # Counted in int64 first, whatever the result is.
    nbytes = context.importer.budget.tensor((count,), 8, context.where)
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
    if training and bool(context.number(2, "training_mode")):
        ratio = float(context.number(1, "ratio")) if context.has(1) else 0.5
        if ratio != 0.0:
            return dropout(context, ratio)
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
