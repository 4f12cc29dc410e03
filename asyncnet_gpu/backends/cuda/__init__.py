"""The CUDA backend: CuPy arrays, streams and events, launches bound once, graphs of whole plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncnet_gpu.errors import DeviceError, message

if TYPE_CHECKING:
    from asyncnet_gpu.backends.cuda.backend import CudaBackend

__all__ = ["create"]


def create() -> CudaBackend:
    """Return a new CUDA backend.

    Raises
    ------
    DeviceError
        If CuPy 14 or a device is missing; says what to install.
    """
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            message(
                "cuda", "CuPy cannot be imported", expected="CuPy 14 or newer", got=str(error),
                remedy='Install asyncnet-gpu[cuda13x] (or [cuda12x]), or pass backend="cpu".',
            )
        ) from error  # fmt: skip
    if int(cupy.__version__.split(".")[0]) < 14:
        raise DeviceError(
            message(
                "cuda", "CuPy is too old", expected="14 or newer", got=cupy.__version__,
                remedy="Install asyncnet-gpu[cuda13x] (or [cuda12x]).",
            )
        )  # fmt: skip
    from asyncnet_gpu.backends.cuda.process import PROCESS

    PROCESS.check()  # before the driver is asked
    if not cupy.is_available():
        raise DeviceError(
            message(
                "cuda", "no device answers", expected="an NVIDIA GPU and its driver",
                got=f"none that CuPy {cupy.__version__} can use",
                remedy='Check nvidia-smi and CUDA_VISIBLE_DEVICES, or pass backend="cpu".',
            )
        )  # fmt: skip
    from asyncnet_gpu.backends.cuda.backend import CudaBackend

    return CudaBackend()
