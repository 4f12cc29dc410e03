"""What is known about an array before it exists: shape, dtype, bytes, layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncnet_gpu.errors import ShapeError, message

#: The dtypes that blobs may have, by NumPy name.
DTYPES: frozenset[str] = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
    | {"float16", "float32", "float64"}
)

#: Of a blob: what a signed 64-bit offset can reach, with room for alignment.
LARGEST_BYTES = 1 << 62

_DTYPE_CACHE: dict[object, np.dtype[Any]] = {}


def as_dtype(dtype: object, *, where: str = "dtype") -> np.dtype[Any]:
    """Return the NumPy dtype for a name, type or dtype; raise `ShapeError` if unsupported.

    >>> as_dtype("float32").itemsize
    4
    """
    try:
        return _DTYPE_CACHE[dtype]
    except (KeyError, TypeError):
        pass
    found: np.dtype[Any] | None
    try:
        found = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        found = None
    if found is None or found.name not in DTYPES:
        raise ShapeError(
            message(
                where,
                "unsupported dtype",
                expected=f"one of {', '.join(sorted(DTYPES))}",
                got=repr(dtype),
                remedy="Cast the array first.",
            )
        )
    _DTYPE_CACHE[dtype] = found
    return found


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape and dtype of a blob.

    Attributes
    ----------
    shape
        Extents, each at least 0; ``()`` is a scalar.
    dtype
        One of `DTYPES`, as a NumPy dtype.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, without padding."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


def spec(shape: Sequence[int] | int, dtype: object, *, where: str = "spec") -> TensorSpec:
    """Build a `TensorSpec`, checking each extent.

    >>> str(spec((2, 3), "float32"))
    'float32[2, 3]'
    """
    if isinstance(shape, (int, np.integer)):
        shape = (int(shape),)
    extents = []
    for extent in shape:
        if not isinstance(extent, (int, np.integer)) or isinstance(extent, bool) or extent < 0:
            raise ShapeError(
                message(
                    where,
                    f"bad shape {tuple(shape)!r}",
                    expected="integers of at least 0",
                    got=repr(extent),
                    remedy="Give every extent as a number; shapes are static in a plan.",
                )
            )
        extents.append(int(extent))
    made = TensorSpec(tuple(extents), as_dtype(dtype, where=where))
    # Also without the extents that are 0: strides are computed from the others.
    if math.prod(e or 1 for e in extents) * made.dtype.itemsize > LARGEST_BYTES:
        raise ShapeError(
            message(where, f"shape {made.shape} is too large", expected=f"{LARGEST_BYTES} bytes",
                    got=made.nbytes, remedy="Check the extents.")
        )  # fmt: skip
    return made


def broadcast(shapes: Sequence[tuple[int, ...]], *, where: str) -> tuple[int, ...]:
    """Return the common shape under NumPy's rules or raise `ShapeError`.

    >>> broadcast([(4, 1), (3,)], where="add")
    (4, 3)
    """
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            message(
                where,
                "shapes do not broadcast",
                expected="equal extents or 1 on every axis, counted from the last",
                got=" and ".join(map(str, shapes)),
                remedy="Reshape one of them.",
            )
        ) from None


def normal_axis(axis: int, ndim: int, *, where: str) -> int:
    """Map a possibly negative axis to [0, ndim) or raise `ShapeError`."""
    if not -ndim <= axis < ndim:
        raise ShapeError(
            message(
                where,
                f"axis={axis} is out of range",
                expected=f"{-ndim}..{ndim - 1}",
                got=axis,
                remedy="Name an axis that the array has.",
            )
        )
    return axis % ndim


def contiguous_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return C-order strides in bytes.

    >>> contiguous_strides((2, 3), 4)
    (12, 4)
    """
    strides = []
    step = itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))
