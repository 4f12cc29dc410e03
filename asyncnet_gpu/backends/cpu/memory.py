"""Aligned bytes, and blobs as arrays over them."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.graph import BlobInfo

_ALIGNMENT = 64

Array = np.ndarray[Any, Any]


def byte_array(nbytes: int) -> Array:
    """Return `nbytes` fresh bytes whose first address is a multiple of a cache line."""
    raw = np.empty(nbytes + _ALIGNMENT, np.uint8)
    shift = -raw.ctypes.data % _ALIGNMENT
    return raw[shift : shift + nbytes]


def bytes_of(array: Array) -> Array:
    """Return the elements of an array as bytes in C order (a view where it is contiguous)."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def blob_array(blob: BlobInfo, buffer: Array, start: int = 0) -> Array:
    """Return a blob as an array over the bytes of its storage, which begin at `start`."""
    return np.ndarray(
        blob.spec.shape,
        blob.spec.dtype,
        buffer=buffer,
        offset=start + blob.offset,
        strides=blob.strides,
    )
