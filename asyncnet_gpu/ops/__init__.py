"""Operators, found by file name: every module here that has ``OPS`` contributes its definitions."""

from __future__ import annotations

import importlib
import pkgutil
from types import MappingProxyType
from typing import TYPE_CHECKING

from asyncnet_gpu.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncnet_gpu.ops.base import Op

__all__ = ["registry"]


def _discover() -> dict[str, Op]:
    found: dict[str, Op] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for op in getattr(module, "OPS", ()):
            if op.name in found:
                raise InternalError(f"[ops] operator {op.name!r} is defined twice")
            found[op.name] = op
    return dict(sorted(found.items()))


_REGISTRY: Mapping[str, Op] = MappingProxyType(_discover())


def registry() -> Mapping[str, Op]:
    """Return every operator by its snake_case name, sorted."""
    return _REGISTRY
