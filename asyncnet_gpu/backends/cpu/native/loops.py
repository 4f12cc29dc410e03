"""The inner loop that a ufunc takes for given dtypes: what NumPy calls once it has sorted its axes.

NumPy gives it out through two methods made for other compilers, the loop itself in a capsule whose
name carries the version of its layout: where either is missing or another, there is no loop, and
the call stays one from Python.

Source: NumPy Enhancement Proposal 43 (ArrayMethod, strided loops); `numpy.ufunc.resolve_dtypes`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

_CAPSULE = b"numpy_1.24_ufunc_call_info"

_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)

DTypes = tuple[np.dtype[Any], ...]


class _CallInfo(ctypes.Structure):
    """What the capsule points to."""

    _fields_ = (
        ("loop", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
        ("auxiliary", ctypes.c_void_p),
        ("requires_python", ctypes.c_bool),
        ("no_floatingpoint_errors", ctypes.c_bool),
    )


@dataclass(frozen=True, slots=True)
class Loop:
    """Addresses of an inner loop and of its first and last argument, valid while `owner` lives."""

    address: int
    context: int
    auxiliary: int
    owner: object


@cache  # whose capsules keep the addresses valid: for good
def loop_of(function: np.ufunc, dtypes: DTypes) -> Loop | None:
    """Return the loop for operands of exactly these dtypes, outputs last.

    None where NumPy would convert one of them, or where the loop needs Python's lock or may raise:
    that of integer powers does so for a negative exponent, and none does but for numbers.
    """
    if any(dtype.kind not in "biufc" for dtype in dtypes):
        return None
    if function is np.power and dtypes[0].kind == "i":
        return None
    try:
        resolved, capsule = function._resolve_dtypes_and_context(dtypes)  # type: ignore[attr-defined]
        if resolved != dtypes:
            return None
        function._get_strided_loop(capsule)  # type: ignore[attr-defined]
        found = _CallInfo.from_address(_pointer_of(capsule, _CAPSULE))
    except (AttributeError, TypeError, ValueError):
        return None
    if found.requires_python or not found.loop:
        return None
    return Loop(found.loop, found.context or 0, found.auxiliary or 0, capsule)


def scalar_dtype(function: np.ufunc, value: float, other: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which a ufunc of two operands takes a Python number."""
    resolved: DTypes = function.resolve_dtypes((other, type(value), None))
    return resolved[1]
