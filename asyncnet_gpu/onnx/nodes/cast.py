"""Conversion between element types, with those that exist in files only and with strings."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.onnx.narrow import NARROW, Narrow, narrow
from asyncnet_gpu.onnx.tensors import ELEMENT_TYPES, element_dtype
from asyncnet_gpu.ops.base import OnnxMapping


def _text(number: Any) -> str:
    """Write a number as the standard has it: the shortest digits that read back as the same."""
    if isinstance(number, (np.bool_, np.integer)):
        return str(int(number))
    if not np.isfinite(number):
        return "NaN" if np.isnan(number) else "INF" if number > 0 else "-INF"
    return str(number)


def _to_text(context: NodeContext, value: Any) -> Any:
    known = context.known_value(value, "number that becomes a text")
    if known.dtype == object:
        return known
    made = np.empty(known.size, object)
    made[:] = [_text(number) for number in known.reshape(-1)]
    return made.reshape(known.shape)


def _from_text(context: NodeContext, texts: Any, dtype: np.dtype[Any]) -> Any:
    read = np.float64 if dtype.kind == "f" else int
    try:
        numbers = [read(text) for text in texts.reshape(-1)]
        return np.array(numbers).astype(dtype).reshape(texts.shape)
    except (ValueError, OverflowError) as error:
        context.fail("text that becomes a number", expected=dtype.name, got=error,
                     remedy="Convert the model.")  # fmt: skip


def _convert(context: NodeContext, element_type: int) -> Any:
    value = context.value(0)
    if isinstance(value, Narrow) and value.element_type == element_type:
        return value
    x: Any = context.x()
    if element_type == TensorProto.STRING:
        return _to_text(context, x)
    wanted = NARROW.get(element_type)
    is_text = isinstance(x, np.ndarray) and x.dtype == object
    if wanted is not None:
        if is_text:
            x = _from_text(context, x, np.dtype(np.int32 if wanted.is_integer else np.float32))
        return narrow(
            context, x, element_type,
            saturate=wanted.name == "float4_e2m1fn" or bool(context.attr_int("saturate", 1)),
            rounding=context.attr_str("round_mode", "up") if wanted.name.endswith("e8m0fnu")
            else "nearest",
        )  # fmt: skip
    dtype = element_dtype(element_type, f"{context.where}, attribute 'to'")
    if is_text:
        return _from_text(context, x, dtype)
    return context.result("cast", x, dtype=dtype.name)


def _cast(context: NodeContext, node: Any) -> Any:
    if context.opset < 6:  # the type's name in text
        return _convert(context, dict(TensorProto.DataType.items()).get(context.attr_str("to"), 0))
    return _convert(context, context.attr_int("to"))


def _cast_like(context: NodeContext, node: Any) -> Any:
    like = context.value(1)
    if isinstance(like, Narrow):
        return _convert(context, like.element_type)
    dtype = np.dtype(context.x(1).dtype)
    return _convert(context, TensorProto.STRING if dtype.kind == "O" else ELEMENT_TYPES[dtype])


NODES = {
    "Cast": OnnxMapping(build=_cast),
    "CastLike": OnnxMapping(since=15, build=_cast_like),
}
