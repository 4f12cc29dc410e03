"""Tensors of a model file as NumPy arrays: types, typed and raw data, lengths checked first."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
from onnx import SparseTensorProto, TensorProto

from asyncnet_gpu.errors import OnnxImportError, message
from asyncnet_gpu.onnx.external import ExternalData
from asyncnet_gpu.onnx.limits import Budget
from asyncnet_gpu.onnx.narrow import NARROW, codes_from_bytes

Array = np.ndarray[Any, Any]

#: ONNX element type to NumPy dtype, for the types that blobs have.
ELEMENT_DTYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype("float32"),
    TensorProto.UINT8: np.dtype("uint8"),
    TensorProto.INT8: np.dtype("int8"),
    TensorProto.UINT16: np.dtype("uint16"),
    TensorProto.INT16: np.dtype("int16"),
    TensorProto.INT32: np.dtype("int32"),
    TensorProto.INT64: np.dtype("int64"),
    TensorProto.BOOL: np.dtype("bool"),
    TensorProto.FLOAT16: np.dtype("float16"),
    TensorProto.DOUBLE: np.dtype("float64"),
    TensorProto.UINT32: np.dtype("uint32"),
    TensorProto.UINT64: np.dtype("uint64"),
}

#: NumPy dtype to ONNX element type.
ELEMENT_TYPES: dict[np.dtype[Any], int] = {dtype: t for t, dtype in ELEMENT_DTYPES.items()}

#: Field of `TensorProto` that holds a dtype when it is not raw; smaller types lie in int32_data.
_FIELDS = {
    "float32": "float_data",
    "float64": "double_data",
    "int64": "int64_data",
    "uint32": "uint64_data",
    "uint64": "uint64_data",
}


def _fail(where: str, what: str, expected: object, got: object, remedy: str) -> NoReturn:
    raise OnnxImportError(message(where, what, expected=expected, got=got, remedy=remedy))


def element_dtype(element_type: int, where: str) -> np.dtype[Any]:
    """Return the dtype of an ONNX element type or raise `OnnxImportError`."""
    dtype = ELEMENT_DTYPES.get(element_type)
    if dtype is None:
        names = TensorProto.DataType.items()
        name = next((n for n, number in names if number == element_type), str(element_type))
        _fail(where, "element type is not supported", "bool, integers or floats of 16 to 64 bits",
              name, "Convert the model to one of those types.")  # fmt: skip
    return dtype


def read_tensor(tensor: TensorProto, budget: Budget, external: ExternalData, where: str) -> Array:
    """Return the values of a tensor; its bytes are counted before they are touched.

    Raises
    ------
    OnnxImportError
        If type, shape and data do not fit together, or are over a limit.
    """
    if tensor.HasField("segment"):
        _fail(where, "segmented tensor", "whole tensors", "a segment", "Write the model again.")
    dtype = element_dtype(tensor.data_type, where)
    shape = tuple(tensor.dims)
    nbytes = budget.tensor(shape, dtype.itemsize, where)
    budget.constant(nbytes, where)
    if tensor.data_location == TensorProto.EXTERNAL:
        raw = external.read({str(e.key): str(e.value) for e in tensor.external_data}, nbytes, where)
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
    else:
        return _typed(tensor, dtype, shape, where)
    if len(raw) != nbytes:
        _fail(where, "raw data", f"{nbytes} bytes for {dtype}{list(shape)}", f"{len(raw)} bytes",
              "The file is broken or cut off.")  # fmt: skip
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


def read_codes(tensor: TensorProto, budget: Budget, external: ExternalData, where: str) -> Array:
    """Return the codes of a tensor of a narrow type (see `narrow`).

    Raises
    ------
    OnnxImportError
        If shape and data do not fit together, or are over a limit.
    """
    wanted, shape = NARROW[tensor.data_type], tuple(tensor.dims)
    budget.constant(budget.tensor(shape, wanted.codes.itemsize, where), where)
    size = math.prod(shape)
    nbytes = -(-size * wanted.bits // 8)
    raw: Any
    if tensor.data_location == TensorProto.EXTERNAL:
        raw = external.read({e.key: e.value for e in tensor.external_data}, nbytes, where)
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
    else:
        raw = np.asarray(tensor.int32_data, np.int64).astype("<u2" if wanted.bits == 16 else "u1")
        raw = raw.tobytes()
    if len(raw) != nbytes:
        _fail(where, "data", f"{nbytes} bytes for {wanted.name}{list(shape)}", f"{len(raw)} bytes",
              "The file is broken or cut off.")  # fmt: skip
    return codes_from_bytes(raw, tensor.data_type, size).reshape(shape)


def read_texts(tensor: TensorProto, budget: Budget, where: str) -> Array:
    """Return a tensor of strings as an array of objects."""
    shape = tuple(tensor.dims)
    nbytes = budget.tensor(shape, 8, where) + sum(map(len, tensor.string_data))
    budget.constant(nbytes, where)
    if math.prod(shape) != len(tensor.string_data):
        _fail(where, "strings", f"{math.prod(shape)} for shape {shape}", len(tensor.string_data),
              "The file is broken or cut off.")  # fmt: skip
    made = np.empty(len(tensor.string_data), object)
    made[:] = [text.decode("utf-8", "replace") for text in tensor.string_data]
    return made.reshape(shape)


def _typed(tensor: TensorProto, dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> Array:
    data = getattr(tensor, _FIELDS.get(dtype.name, "int32_data"))
    size = math.prod(shape)
    if len(data) != size:
        _fail(where, "typed data", f"{size} elements for shape {shape}", len(data),
              "The file is broken or cut off.")  # fmt: skip
    if dtype.name == "float16":  # the bits, not the numbers
        return np.asarray(data, np.int32).astype(np.uint16).view(np.float16).reshape(shape)
    return np.asarray(data).astype(dtype).reshape(shape)


def read_sparse(
    sparse: SparseTensorProto, budget: Budget, external: ExternalData, where: str
) -> Array:
    """Return a sparse tensor as a dense array."""
    values = read_tensor(sparse.values, budget, external, where)
    indices = read_tensor(sparse.indices, budget, external, where)
    shape = tuple(sparse.dims)
    nbytes = budget.tensor(shape, values.dtype.itemsize, where)
    budget.constant(nbytes, where)
    size = math.prod(shape)
    if indices.dtype != np.int64 or values.ndim != 1 or indices.ndim not in (1, 2):
        _fail(where, "sparse tensor", "a vector of values with int64 indices",
              f"{indices.dtype}{list(indices.shape)}", "The file is broken.")  # fmt: skip
    if indices.ndim == 2:
        inside = indices.shape == (len(values), len(shape))
        inside = inside and bool(((indices >= 0) & (indices < np.asarray(shape))).all())
        flat = np.ravel_multi_index(tuple(indices.T), shape) if inside and len(values) else None
    else:
        inside = len(indices) == len(values)
        inside = inside and bool(((indices >= 0) & (indices < size)).all())
        flat = indices if inside and len(values) else None
    if not inside:
        _fail(where, "sparse indices", f"one inside {shape} for each value", "others",
              "The file is broken.")  # fmt: skip
    dense = np.zeros(size, values.dtype)
    if flat is not None:
        dense[flat] = values
    return dense.reshape(shape)
