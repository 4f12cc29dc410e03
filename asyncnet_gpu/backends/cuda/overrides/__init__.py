"""Operators that the CUDA backend carries out in a way of its own, found by file name.

``overrides/<operator>.py`` has ``bind(context, ins, outs, attrs, scratch)``, which returns a launch
or None when it cannot do this case; then the operator's kernel is tried, then CuPy.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

Bind = Callable[..., Callable[[], object] | None]

_binds: dict[str, Bind] = {}
_names = frozenset(m.name for m in pkgutil.iter_modules(__path__))


def find(operator: str) -> Bind | None:
    """Return the override of an operator, or None."""
    if operator not in _names:
        return None
    if operator not in _binds:
        module: Any = importlib.import_module(f"{__name__}.{operator}")
        _binds[operator] = module.bind
    return _binds[operator]
