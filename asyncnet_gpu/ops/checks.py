"""Small checks of attributes that several operator families share."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from asyncnet_gpu.errors import ShapeError, message
from asyncnet_gpu.specs import normal_axis


def fail(where: str, what: str, *, expected: object, got: object, remedy: str) -> NoReturn:
    """Raise `ShapeError` in the one form used everywhere."""
    raise ShapeError(message(where, what, expected=expected, got=got, remedy=remedy))


def as_ints(value: object, name: str, *, where: str) -> tuple[int, ...]:
    """Return an attribute given as one integer or several as a tuple of integers.

    >>> as_ints([2, 3], "shape", where="reshape")
    (2, 3)
    """
    items: Iterable[Any] = (value,)
    if isinstance(value, Iterable) and not isinstance(value, str):
        items = value
    try:
        return tuple([operator.index(item) for item in items])
    except TypeError:
        fail(
            where,
            f"bad {name}={value!r}",
            expected="integers",
            got=repr(value),
            remedy=f"Give {name} as an integer or a tuple of integers.",
        )


def as_int(value: object, name: str, *, where: str) -> int:
    """Return an attribute as one integer."""
    return as_ints((value,), name, where=where)[0]


def one_of(value: object, name: str, choices: Sequence[str], *, where: str) -> str:
    """Return an attribute that must be one of a few words."""
    if value not in choices:
        fail(
            where,
            f"unknown {name}={value!r}",
            expected="one of " + ", ".join(map(repr, choices)),
            got=repr(value),
            remedy=f"Choose another {name}.",
        )
    return str(value)


def normal_axes(axes: Iterable[int], ndim: int, *, where: str) -> tuple[int, ...]:
    """Map axes to [0, ndim), refusing doubles; the order given is kept.

    >>> normal_axes((-1, 0), 3, where="squeeze")
    (2, 0)
    """
    found = tuple([normal_axis(axis, ndim, where=where) for axis in axes])
    if len(set(found)) != len(found):
        fail(
            where,
            f"axes={tuple(axes)} name an axis twice",
            expected="distinct axes",
            got=found,
            remedy="Name each axis once.",
        )
    return found
