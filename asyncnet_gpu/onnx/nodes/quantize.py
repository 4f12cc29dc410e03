"""Quantised operators, exact and not yet fast: whole numbers are computed in floats that hold them.

A product of bytes is below 2**16, so that a float32 holds a sum of 2**8 of them exactly and a
float64 one of 2**37: BLAS then does what there is no integer routine for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import TensorProto

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.onnx.narrow import NARROW, Narrow, narrow
from asyncnet_gpu.onnx.nodes.windows import n_spatial, window
from asyncnet_gpu.onnx.tensors import ELEMENT_TYPES, element_dtype
from asyncnet_gpu.ops.base import OnnxMapping


def _aligned(context: NodeContext, value: Any, like: Any, axis: int, block: int) -> Any:
    """Shape a scale or zero point so that it broadcasts: one, one for each index, or blocks."""
    shape, ndim = list(value.shape), len(like.shape)
    if math.prod(shape) == 1:
        return context.emit("reshape", value, shape=())
    if not -ndim <= axis < ndim:
        context.fail("attribute 'axis'", expected=f"{-ndim}..{ndim - 1}", got=axis,
                     remedy="The file is broken.")  # fmt: skip
    axis %= ndim
    if len(shape) == 1 and not block:
        return context.emit("reshape", value, shape=(-1, *[1] * (ndim - 1 - axis)))
    wide = context.emit("unsqueeze", value, axes=(axis + 1,))
    spread = [*shape[: axis + 1], block, *shape[axis + 1 :]]
    repeated = context.emit("broadcast_to", wide, shape=tuple(spread))
    merged = context.emit(
        "reshape", repeated, shape=(*shape[:axis], shape[axis] * block, *shape[axis + 1 :])
    )
    return context.emit("slice", merged, starts=(0,), ends=(like.shape[axis],), axes=(axis,))


def _to(context: NodeContext, value: Any, dtype: Any) -> Any:
    name = np.dtype(dtype).name
    return value if np.dtype(value.dtype).name == name else context.emit("cast", value, dtype=name)


def saturate(
    context: NodeContext, value: Any, zero: Any, dtype: np.dtype[Any],
    limits: tuple[int, int] | None = None,
) -> Any:  # fmt: skip
    """Round, shift by the zero point, cut to the range of `dtype`, convert: the node's result."""
    info = np.iinfo(dtype)
    low, high = (info.min, info.max) if limits is None else limits
    rounded = context.emit("round", value)
    if zero is not None:
        rounded = context.emit("add", rounded, _to(context, zero, value.dtype))
    cut = context.emit("clip", rounded, low=float(low), high=float(high))
    return context.result("cast", cut, dtype=dtype.name)


def _quantized_type(context: NodeContext) -> int:
    """Return the element type that a node quantises to."""
    zero = context.value(2)
    if isinstance(zero, Narrow):
        return zero.element_type
    if zero is not None:
        return ELEMENT_TYPES[np.dtype(context.x(2).dtype)]
    return int(context.attr_int("output_dtype", 0)) or TensorProto.UINT8


def _quantize(context: NodeContext, node: Any) -> Any:
    x, scale, zero = context.x(0), context.x(1), context.maybe(2)
    axis, block = context.attr_int("axis", 1), context.attr_int("block_size", 0)
    element_type = _quantized_type(context)
    small = NARROW.get(element_type)
    dtype = element_dtype(element_type, context.where) if small is None else small.codes
    if dtype.kind not in "iu":
        context.unsupported(f"quantising to {dtype}")
    scale = _aligned(context, scale, x, axis, block)
    if zero is not None:
        zero = _aligned(context, zero, x, axis, block)
    work = np.float64 if dtype.itemsize > 2 else np.float32
    precision = context.attr_int("precision", 0)
    if precision:
        work = element_dtype(precision, context.where).type
    ratio = context.emit("div", _to(context, x, work), _to(context, scale, work))
    ratio = _to(context, ratio, np.result_type(ratio.dtype, np.float32))
    if small is None:
        return saturate(context, ratio, zero, dtype)
    if small.is_integer:
        (codes,) = saturate(context, ratio, zero, dtype, (small.low, small.high))
        return Narrow(codes, element_type)
    # The zero point of a float type is 0: adding it changes nothing.
    return narrow(context, ratio, element_type, saturate=bool(context.attr_int("saturate", 1)))


def _dequantize(context: NodeContext, node: Any) -> Any:
    x, scale, zero = context.x(0), context.x(1), context.maybe(2)
    axis, block = context.attr_int("axis", 1), context.attr_int("block_size", 0)
    out = np.dtype(scale.dtype)
    if context.attr_int("output_dtype", 0):
        out = element_dtype(context.attr_int("output_dtype"), context.where)
    scale = _aligned(context, scale, x, axis, block)
    if np.dtype(x.dtype).kind == "f":  # a narrow type: numbers already, without a zero point
        return context.result("cast", context.emit("mul", x, _to(context, scale, x.dtype)),
                              dtype=out.name)  # fmt: skip
    whole = _to(context, x, np.int32)
    if zero is not None:
        zero = _to(context, _aligned(context, zero, x, axis, block), np.int32)
        whole = context.emit("sub", whole, zero)
    wide = np.result_type(scale.dtype, np.float32)
    value = context.emit("mul", _to(context, whole, wide), _to(context, scale, wide))
    return context.result("cast", value, dtype=out.name)


def _exact(terms: int) -> Any:
    """Return the float type in which a sum of so many products of bytes is exact."""
    return np.float32 if terms * 65025 < 1 << 24 else np.float64


def _centred(context: NodeContext, value: Any, zero: Any, axis: int, dtype: Any) -> Any:
    """Return a quantised value less its zero point, as floats."""
    value = _to(context, value, dtype)
    if zero is None:
        return value
    zero = _to(context, zero, dtype)
    if math.prod(zero.shape) != 1 and not value.shape:
        context.fail("zero point", expected="one number", got=list(zero.shape),
                     remedy="The file is broken.")  # fmt: skip
    if math.prod(zero.shape) > 1 and len(zero.shape) == 1:
        after = len(value.shape) - 1 - axis % len(value.shape)
        zero = context.emit("reshape", zero, shape=(-1, *[1] * after))
    elif math.prod(zero.shape) == 1:
        zero = context.emit("reshape", zero, shape=())
    return context.emit("sub", value, zero)


def _matmul_integer(context: NodeContext, node: Any) -> Any:
    a, b = context.x(0), context.x(1)
    work = _exact(a.shape[-1] if a.shape else 1)
    product = context.emit("matmul", _centred(context, a, context.maybe(2), -2, work),
                           _centred(context, b, context.maybe(3), -1, work))  # fmt: skip
    return context.result("cast", product, dtype="int32")


def _conv_integer(context: NodeContext, node: Any) -> Any:
    x, w = context.x(0), context.x(1)
    work = _exact(math.prod(w.shape[1:]))
    product = context.emit(
        "conv", _centred(context, x, context.maybe(2), 0, work),
        _centred(context, w, context.maybe(3), 0, work),
        groups=context.attr_int("group", 1), **window(context, n_spatial(context, x)),
    )  # fmt: skip
    return context.result("cast", product, dtype="int32")


def _rescaled(
    context: NodeContext, product: Any, scales: tuple[Any, Any, Any], zero: Any, after: int
) -> Any:
    """Turn exact products into the quantised result: ``a_scale * b_scale / y_scale`` times them."""
    a, b, y = (_to(context, s, np.float64) for s in scales)
    ratio = context.emit("div", context.emit("mul", _scalar(context, a), b), _scalar(context, y))
    if math.prod(ratio.shape) > 1 and len(ratio.shape) == 1:
        ratio = context.emit("reshape", ratio, shape=(-1, *[1] * after))
    elif math.prod(ratio.shape) == 1:
        ratio = _scalar(context, ratio)
    value = context.emit("mul", _to(context, product, np.float64), ratio)
    return saturate(context, value, _scalar(context, zero), np.dtype(zero.dtype))


def _scalar(context: NodeContext, value: Any) -> Any:
    if math.prod(value.shape) == 1 and len(value.shape):
        return context.emit("reshape", value, shape=())
    return value


def _qlinear_matmul(context: NodeContext, node: Any) -> Any:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (context.x(i) for i in range(8))
    work = _exact(a.shape[-1] if a.shape else 1)
    product = context.emit("matmul", _centred(context, a, a_zero, -2, work),
                           _centred(context, b, b_zero, -1, work))  # fmt: skip
    return _rescaled(context, product, (a_scale, b_scale, y_scale), y_zero, 0)


def _qlinear_conv(context: NodeContext, node: Any) -> Any:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (context.x(i) for i in range(8))
    work = _exact(math.prod(w.shape[1:]))
    count = n_spatial(context, x)
    product = context.emit(
        "conv", _centred(context, x, x_zero, 0, work), _centred(context, w, w_zero, 0, work),
        groups=context.attr_int("group", 1), **window(context, count),
    )  # fmt: skip
    bias = context.maybe(8)
    if bias is not None:
        wide = _to(context, product, np.float64)
        shape = (-1, *[1] * count)
        bias = context.emit("reshape", _to(context, bias, np.float64), shape=shape)
        product = context.emit("add", wide, bias)
    return _rescaled(context, product, (x_scale, w_scale, y_scale), y_zero, count)


NODES = {
    "ConvInteger": OnnxMapping(since=10, build=_conv_integer),
    "DequantizeLinear": OnnxMapping(since=10, build=_dequantize),
    "MatMulInteger": OnnxMapping(since=10, build=_matmul_integer),
    "QLinearConv": OnnxMapping(since=10, build=_qlinear_conv),
    "QLinearMatMul": OnnxMapping(since=10, build=_qlinear_matmul),
    "QuantizeLinear": OnnxMapping(since=10, build=_quantize),
}
