"""Backends, found by folder name; imported only when asked for."""

from __future__ import annotations

import importlib
import pkgutil

from asyncnet_gpu.backends.base import AbstractBackend
from asyncnet_gpu.errors import DeviceError, PlanError, message

__all__ = ["available", "load"]


def available() -> tuple[str, ...]:
    """Return the names of the backend folders, sorted; some may have no device."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.ispkg))


def load(name: str) -> AbstractBackend:
    """Return a new backend; ``"auto"`` takes CUDA when a device answers, else the CPU.

    Raises
    ------
    PlanError
        If there is no such backend.
    DeviceError
        If the backend's library or device is missing.
    """
    if name == "auto":
        try:
            return load("cuda")
        except DeviceError:
            return load("cpu")
    if name not in available():
        raise PlanError(
            message(
                "compile", f"backend={name!r}", expected=" | ".join(("auto", *available())),
                got=repr(name), remedy="Choose one of them.",
            )
        )  # fmt: skip
    module = importlib.import_module(f"{__name__}.{name}")
    backend: AbstractBackend = module.create()
    return backend
