"""Values of element types that no blob has: bfloat16, floats of 8 and 4, integers of 4 and 2 bits.

Such a value travels as codes, a blob of unsigned integers; an integer of 4 or 2 bits as itself in
8. A node that is not made for it computes in float32 (8-bit integers) and its result is rounded
back, where the definition of the operator says that a result has the type of that input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from onnx import TensorProto, defs

from asyncnet_gpu.ops.narrow import code_dtype

if TYPE_CHECKING:
    from asyncnet_gpu.onnx.context import NodeContext, Tensor, Value

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class NarrowType:
    """An element type that no blob has.

    Attributes
    ----------
    name
        As in `ml_dtypes`, and of the format of `encode_float`.
    bits
        Of an element in a file.
    codes
        dtype of the blob that stands for it.
    low, high
        Range of an integer type; equal for floats.
    """

    name: str
    bits: int
    codes: np.dtype[Any]
    low: int = 0
    high: int = 0

    @property
    def is_integer(self) -> bool:
        """Whether codes are the numbers themselves."""
        return self.low != self.high


def _float(name: str, bits: int) -> NarrowType:
    return NarrowType(name, bits, code_dtype(name))


_SIGNED, _UNSIGNED = np.dtype(np.int8), np.dtype(np.uint8)

NARROW: dict[int, NarrowType] = {
    TensorProto.BFLOAT16: _float("bfloat16", 16),
    TensorProto.FLOAT8E4M3FN: _float("float8_e4m3fn", 8),
    TensorProto.FLOAT8E4M3FNUZ: _float("float8_e4m3fnuz", 8),
    TensorProto.FLOAT8E5M2: _float("float8_e5m2", 8),
    TensorProto.FLOAT8E5M2FNUZ: _float("float8_e5m2fnuz", 8),
    TensorProto.FLOAT8E8M0: _float("float8_e8m0fnu", 8),
    TensorProto.FLOAT4E2M1: _float("float4_e2m1fn", 4),
    TensorProto.INT4: NarrowType("int4", 4, _SIGNED, -8, 7),
    TensorProto.UINT4: NarrowType("uint4", 4, _UNSIGNED, 0, 15),
    TensorProto.INT2: NarrowType("int2", 2, _SIGNED, -2, 1),
    TensorProto.UINT2: NarrowType("uint2", 2, _UNSIGNED, 0, 3),
}

#: Nodes that see narrow inputs as they are, and say themselves what their results are.
AWARE = frozenset(
    {"Cast", "CastLike", "Constant", "DequantizeLinear", "Identity", "If", "Loop", "Optional",
     "OptionalGetElement", "OptionalHasElement", "QuantizeLinear", "SequenceConstruct",
     "SequenceInsert", "Shape", "Size"}
)  # fmt: skip


@final
class Narrow:
    """A value of a narrow type: its codes, known or a blob."""

    __slots__ = ("codes", "element_type")

    def __init__(self, codes: Tensor, element_type: int) -> None:
        self.codes = codes
        self.element_type = element_type

    @property
    def type(self) -> NarrowType:
        """What its elements are."""
        return NARROW[self.element_type]

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return tuple(self.codes.shape)


def widen(context: NodeContext, value: Narrow) -> Any:
    """Return the numbers: float32, or the integers of 8 bits."""
    if value.type.is_integer:
        return value.codes
    return context.emit("decode_float", value.codes, format=value.type.name)


def narrow(
    context: NodeContext, value: Any, element_type: int, *, saturate: bool = False,
    rounding: str = "nearest",
) -> Narrow:  # fmt: skip
    """Convert numbers to a narrow type: floats are rounded, integers cut to the lowest bits."""
    wanted, kind = NARROW[element_type], np.dtype(value.dtype).kind
    if not wanted.is_integer:
        if kind != "f":
            value = context.emit("cast", value, dtype="float32")
        return Narrow(
            context.emit("encode_float", value, format=wanted.name, saturate=saturate,
                         rounding=rounding),
            element_type,
        )  # fmt: skip
    whole = context.emit("cast", value, dtype="int32")
    cut = context.emit("bitwise_and", whole, np.asarray((1 << wanted.bits) - 1, np.int32))
    if wanted.low:  # the highest bit is the sign
        half = np.asarray(-wanted.low, np.int32)
        cut = context.emit("sub", context.emit("bitwise_xor", cut, half), half)
    return Narrow(context.emit("cast", cut, dtype=wanted.codes.name), element_type)


def restore(context: NodeContext, values: Sequence[Value], made: Sequence[Value]) -> list[Value]:
    """Round the results of a node to the narrow types that its definition demands."""
    node = context.node
    try:
        schema = defs.get_schema(node.op_type, context.opset, node.domain)
    except defs.SchemaError:
        return list(made)
    types = {
        _parameter(schema.inputs, i): v.element_type
        for i, v in enumerate(values)
        if isinstance(v, Narrow)
    }
    found: list[Value] = []
    for i, value in enumerate(made):
        wanted = types.get(_parameter(schema.outputs, i))
        if wanted is None or value is None or isinstance(value, (list, Narrow)):
            found.append(value)
        else:
            found.append(narrow(context, value, wanted))
    return found


def _parameter(formal: Sequence[Any], index: int) -> str:
    """Return the type parameter of an input or output; the last one may stand for several."""
    return str(formal[min(index, len(formal) - 1)].type_str) if formal else ""


# -- arrays of the host --------------------------------------------------------------------------


def codes_from_bytes(raw: bytes | Array, element_type: int, size: int) -> Array:
    """Return codes of elements that lie packed in bytes, the first in the lowest bits."""
    wanted = NARROW[element_type]
    if wanted.bits == 16:
        return np.frombuffer(raw, "<u2")[:size].astype(np.uint16)
    packed = np.frombuffer(raw, np.uint8)
    if wanted.bits == 8:
        return packed[:size].copy()
    shifts = np.arange(0, 8, wanted.bits, dtype=np.uint8)
    mask = np.uint8((1 << wanted.bits) - 1)
    codes: Array = ((packed[:, None] >> shifts) & mask).reshape(-1)[:size]
    if not wanted.low:
        return codes
    half = -wanted.low
    return ((codes.astype(np.int16) ^ half) - half).astype(np.int8)


def codes_from_array(array: Array, element_type: int) -> Array:
    """Return the codes of an array of an `ml_dtypes` type."""
    wanted = NARROW[element_type]
    if wanted.is_integer:
        return array.astype(wanted.codes)
    return np.ascontiguousarray(array).view(wanted.codes).reshape(array.shape)


def array_from_codes(codes: Array, element_type: int) -> Array:
    """Return codes as an array of the `ml_dtypes` type."""
    import ml_dtypes  # comes with onnx

    wanted = NARROW[element_type]
    dtype = np.dtype(getattr(ml_dtypes, wanted.name))
    if wanted.is_integer:
        return codes.astype(dtype)
    made: Array = np.ascontiguousarray(codes).view(dtype).reshape(codes.shape)
    return made
