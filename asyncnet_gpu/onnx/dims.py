"""Inputs of a model: their dtypes and extents, and whether shapes fit what the file says.

An extent is a number, a name, or nothing. A name stands for one number in all inputs (ONNX IR
specification, "Static tensor shapes": dimension variables).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from asyncnet_gpu.errors import OnnxImportError, ShapeError, message
from asyncnet_gpu.onnx.narrow import NARROW
from asyncnet_gpu.onnx.tensors import element_dtype

Extents = tuple["int | str | None", ...]

#: Where a named dimension occurs: its name, the input, the axis.
Named = tuple[str, str, int]

#: What exporters write as the name of an extent that they know nothing of.
_NO_NAMES = frozenset({"?", "-1", "*", "None", "none", "unk", "unknown"})


def describe_input(entry: Any, shape: Sequence[int] | None) -> tuple[np.dtype[Any], Extents | None]:
    """Return dtype and extents of a graph input, with the shape that the caller binds.

    Raises
    ------
    OnnxImportError
        If the input is no tensor of a supported type.
    ShapeError
        If `shape` contradicts the file.
    """
    where = f"onnx input {entry.name[:200]!r}"
    if entry.type.WhichOneof("value") != "tensor_type":
        raise OnnxImportError(
            message(where, "kind of value", expected="a tensor",
                    got=entry.type.WhichOneof("value"), remedy="Convert the model.")
        )  # fmt: skip
    tensor = entry.type.tensor_type
    if tensor.elem_type == TensorProto.STRING:
        return np.dtype(np.uint8), None  # as bytes, see `ports`
    narrow = NARROW.get(tensor.elem_type)
    dtype = element_dtype(tensor.elem_type, where) if narrow is None else narrow.codes
    extents: Extents | None = None
    if tensor.HasField("shape"):
        extents = tuple([_extent(dim) for dim in tensor.shape.dim])
    if shape is not None:
        check_extents(entry.name, extents, tuple(shape))
        extents = tuple(int(e) for e in shape)
    return dtype, extents


def _extent(dim: Any) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def check_extents(name: str, extents: Extents | None, shape: tuple[int, ...]) -> None:
    """Raise `ShapeError` when a shape contradicts what the model says of an input."""
    if extents is None:
        return
    fits = len(extents) == len(shape)
    if fits and all(not isinstance(e, int) or e == s for e, s in zip(extents, shape, strict=True)):
        return
    raise ShapeError(
        message("onnx", f"shape of input {name!r}", expected=list(extents), got=list(shape),
                remedy="Give a shape that the model takes.")
    )  # fmt: skip


def shared_names(extents: Mapping[str, Extents | None]) -> tuple[Named, ...]:
    """Return where dimensions occur whose name occurs more than once."""
    found = [
        (extent, name, axis)
        for name, parts in extents.items()
        for axis, extent in enumerate(parts or ())
        if isinstance(extent, str) and extent not in _NO_NAMES
    ]
    count: dict[str, int] = {}
    for dim, _, _ in found:
        count[dim] = count.get(dim, 0) + 1
    return tuple(place for place in found if count[place[0]] > 1)


def check_shared(
    where: str, places: Sequence[Named], shapes: Mapping[str, Sequence[int]]
) -> None:  # fmt: skip
    """Raise `ShapeError` when one named dimension has two values.

    Parameters
    ----------
    where
        The call, for the error.
    places
        Of `shared_names`.
    shapes
        By input; those that are missing, and those of another rank, are left out.
    """
    first: dict[str, tuple[str, int, int]] = {}
    for dim, name, axis in places:
        shape = shapes.get(name)
        if shape is None or axis >= len(shape):
            continue
        size = int(shape[axis])
        other, other_axis, expected = first.setdefault(dim, (name, axis, size))
        if size != expected:
            raise ShapeError(
                message(
                    where, f"dimension {dim!r} of the model is one number in all its inputs",
                    expected=f"{expected} as in axis {other_axis} of input {other!r}",
                    got=f"{size} in axis {axis} of input {name!r}",
                    remedy="Give both the same extent; if they need not agree, the file should "
                    "name them differently.",
                )
            )  # fmt: skip
