"""The CUDA backend's side of the contract: memory, arrays and rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import cupy

from asyncnet_gpu.backends.base import AbstractBackend, AbstractProgram, ProgramOptions
from asyncnet_gpu.backends.cuda import arrays, device
from asyncnet_gpu.backends.cuda.bound import physical_devices
from asyncnet_gpu.backends.cuda.faults import (
    device_error,
    driver_errors,
    is_out_of_memory,
    out_of_memory,
)
from asyncnet_gpu.backends.cuda.process import PROCESS
from asyncnet_gpu.backends.cuda.program import CudaProgram
from asyncnet_gpu.backends.cuda.reclaim import RECLAIMER
from asyncnet_gpu.backends.cuda.waiter import Waiter
from asyncnet_gpu.forking import after_fork
from asyncnet_gpu.graph import PERSISTENT_KINDS
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.specs import TensorSpec

#: Of blobs in an arena: what cudaMalloc promises for the first one.
_ALIGNMENT = 256


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of a persistent storage."""

    memory: arrays.OwnedMemory
    device: int

    @property
    def block(self) -> Any:
        """The memory, for arrays over it."""
        return self.memory.block


@final
class CudaBackend(AbstractBackend):
    """CuPy on NVIDIA GPUs."""

    name: ClassVar[str] = "cuda"
    captures: ClassVar[bool] = True
    survives_fork: ClassVar[bool] = False

    def __init__(self) -> None:
        self._devices: tuple[int, ...] | None = None
        self._waiter = Waiter()
        self._buffers: list[Buffer] = []
        PROCESS.use()
        after_fork(self, CudaBackend._leave_to_parent)

    def _leave_to_parent(self) -> None:
        self._buffers = []

    @property
    def xp(self) -> Any:
        """The cupy module."""
        return cupy

    def n_devices(self) -> int | None:
        """Devices that answer."""
        return device.n_devices()

    def model(self) -> DeviceModel:
        """Rates of the first device."""
        PROCESS.check()
        return device.device_model(0)

    def alignment(self) -> int:
        """Widest vector access, and a multiple of a memory transaction."""
        return _ALIGNMENT

    def adopt(self, value: object, spec: TensorSpec, device: int) -> Any:
        """Return `value` on its physical device, to be ordered after the caller's stream."""
        PROCESS.check()
        devices = self._devices
        try:
            return arrays.adopt(value, spec, device if devices is None else devices[device])
        except driver_errors() as error:
            raise device_error("run", "an input cannot be brought to the device", error) from error

    def to_numpy(self, array: Any) -> Any:
        """Fetch an array in the order of the caller's current stream."""
        return arrays.to_numpy(array)

    def load_values(self, plan: Plan, options: ProgramOptions) -> Mapping[int, Any]:
        """Copy parameters, states and constants to their devices."""
        RECLAIMER.reclaim()
        self._devices = options.devices
        devices = physical_devices(plan, options)
        graph = plan.graph
        loaded: dict[int, Any] = {}
        total = sum(v.nbytes for v in graph.values.values())
        for name, value in graph.values.items():
            storage = graph.storages[graph.blobs[name].storage]
            if storage.kind not in PERSISTENT_KINDS or storage.id in loaded:
                continue
            where = devices[storage.device]
            try:
                buffer = Buffer(arrays.OwnedMemory(storage.nbytes, where), where)
                self._buffers.append(buffer)
                arrays.upload(buffer.block, value, where)
            except driver_errors() as error:
                self.close()
                label = f"net {graph.name!r}, parameter {name!r}"
                if is_out_of_memory(error):
                    raise out_of_memory(label, storage.nbytes, total, error) from error
                raise device_error(label, "the value cannot be loaded", error) from error
            loaded[storage.id] = buffer
        return loaded

    def program(
        self, plan: Plan, values: Mapping[int, Any], options: ProgramOptions
    ) -> AbstractProgram:
        """Bind the plan to a new slot."""
        PROCESS.check()
        RECLAIMER.reclaim()
        return CudaProgram(plan, values, options, self._waiter)

    def read_value(self, buffer: Any, spec: TensorSpec) -> Any:
        """Return a persistent storage as a fresh NumPy array."""
        PROCESS.check()
        return arrays.download(buffer.block, spec, buffer.device)

    def write_value(self, buffer: Any, array: Any) -> None:
        """Overwrite a persistent storage and wait for it."""
        PROCESS.check()
        arrays.upload(buffer.block, array, buffer.device)

    def close(self) -> None:
        """Free parameters, states and constants; all programs are closed or given up."""
        buffers, self._buffers = self._buffers, []

        def free() -> None:
            for buffer in buffers:
                buffer.memory.free()

        if buffers:
            RECLAIMER.release(free, self._waiter)  # who was given up may still read them
