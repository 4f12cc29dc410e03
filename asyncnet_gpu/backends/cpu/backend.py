"""The CPU backend's side of the contract: memory, arrays and rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np

from asyncnet_gpu.backends.base import AbstractBackend, AbstractProgram, ProgramOptions
from asyncnet_gpu.backends.cpu.cores import usable_cores
from asyncnet_gpu.backends.cpu.memory import byte_array, bytes_of
from asyncnet_gpu.backends.cpu.native.library import library
from asyncnet_gpu.backends.cpu.program import CpuProgram
from asyncnet_gpu.errors import ShapeError, message
from asyncnet_gpu.graph import PERSISTENT_KINDS
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.specs import TensorSpec

#: One core: sustained single-precision arithmetic, memory traffic, and the price of a launch and
#: of an event between threads. Where each call goes through Python, a thread has to be woken for it
#: and gets Python's lock (40-80 microseconds); in lists of calls it watches a flag.
_FLOPS_PER_S = 30e9
_BYTES_PER_S = 6e9
_LAUNCH_S = 1e-6
_HANDOFF_S = 60e-6
_FLAG_HANDOFF_S = 10e-6
#: Where no thread has to be woken for an event, functions of Python's that take longer overlap.
_SHORTEST_UNLOCKED_S = 20e-6
_ALIGNMENT = 64  # a cache line, and the widest vector


@final
class CpuBackend(AbstractBackend):
    """NumPy on threads. Any number of logical devices: they share the one memory."""

    name: ClassVar[str] = "cpu"

    @property
    def xp(self) -> Any:
        """The numpy module."""
        return np

    def n_devices(self) -> int | None:
        """None: as many as a net asks for."""
        return None

    def model(self) -> DeviceModel:
        """Rates of one core."""
        by_flags = library() is not None
        return DeviceModel(
            flops_per_s=_FLOPS_PER_S,
            bytes_per_s=_BYTES_PER_S,
            launch_s=_LAUNCH_S,
            fixed_s=_LAUNCH_S,
            handoff_s=_FLAG_HANDOFF_S if by_flags else _HANDOFF_S,
            copy_bytes_per_s=_BYTES_PER_S,
            lanes=usable_cores(),
            threads=True,
            shortest_unlocked_s=_SHORTEST_UNLOCKED_S if by_flags else _HANDOFF_S,
            interprets=not by_flags,
        )

    def alignment(self) -> int:
        """A cache line."""
        return _ALIGNMENT

    def adopt(self, value: object, spec: TensorSpec, device: int) -> Any:
        """Return `value` as a contiguous, aligned NumPy array, sharing memory where it can."""
        array = _as_numpy(value, spec)
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise ShapeError(
                message(
                    "run", "input does not fit", expected=str(spec),
                    got=f"{array.dtype.name}{list(array.shape)}",
                    remedy="Shapes and dtypes are static in a plan: convert the array, or compile "
                    "the net for this shape.",
                )
            )  # fmt: skip
        if array.flags.c_contiguous and array.flags.aligned:
            return array  # itself, not a view: steps bound to it stay bound
        return np.require(array, requirements=["C", "A"]).reshape(spec.shape)

    def to_numpy(self, array: Any) -> Any:
        """Return the array itself."""
        return array

    def load_values(self, plan: Plan, options: ProgramOptions) -> Mapping[int, Any]:
        """Copy parameters, states and constants into memory of their own."""
        graph = plan.graph
        loaded: dict[int, Any] = {}
        for name, value in graph.values.items():
            storage = graph.storages[graph.blobs[name].storage]
            if storage.kind in PERSISTENT_KINDS and storage.id not in loaded:
                buffer = byte_array(storage.nbytes)
                buffer[:] = bytes_of(value)
                loaded[storage.id] = buffer
        return loaded

    def program(
        self, plan: Plan, values: Mapping[int, Any], options: ProgramOptions
    ) -> AbstractProgram:
        """Bind the plan to a new slot."""
        return CpuProgram(plan, values, options)

    def read_value(self, buffer: Any, spec: TensorSpec) -> Any:
        """Return a fresh array with the bytes of a persistent storage."""
        return np.ndarray(spec.shape, spec.dtype, buffer=buffer).copy()

    def write_value(self, buffer: Any, array: Any) -> None:
        """Overwrite a persistent storage."""
        buffer[:] = bytes_of(array)

    def close(self) -> None:
        """Nothing is held: memory goes with the last array."""


def _as_numpy(value: object, spec: TensorSpec) -> np.ndarray[Any, Any]:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (bool, int, float, list, tuple, np.generic)):
        return np.asarray(value, spec.dtype)
    if hasattr(value, "__cuda_array_interface__") and hasattr(value, "get"):
        return np.asarray(value.get())  # a device array on a CPU net: fetched, in stream order
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            raise ShapeError(
                message(
                    "run", "input cannot be shared", expected="an array in CPU memory",
                    got=f"{type(value).__name__}: {error}",
                    remedy="Pass NumPy, or detach and move it to the CPU first.",
                )
            ) from error  # fmt: skip
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ShapeError(
            message("run", "input is no array", expected=str(spec), got=type(value).__name__,
                    remedy="Pass NumPy, CuPy or anything with DLPack.")
        ) from error  # fmt: skip
