"""The CPU backend: NumPy, one worker thread per stream, events that hand over between them."""

from __future__ import annotations

from asyncnet_gpu.backends.cpu.backend import CpuBackend

__all__ = ["create"]


def create() -> CpuBackend:
    """Return a new CPU backend."""
    return CpuBackend()
