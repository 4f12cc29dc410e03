"""Devices: which there are, switching between them, peer access, rates for the cost model."""

from __future__ import annotations

from types import TracebackType
from typing import final

from cupy.cuda import runtime

from asyncnet_gpu.backends.cuda.faults import status_of
from asyncnet_gpu.plan.cost import DeviceModel

_ATTRIBUTE_CLOCK_KHZ = 13
_ATTRIBUTE_PROCESSORS = 16
_ATTRIBUTE_MEMORY_CLOCK_KHZ = 36
_ATTRIBUTE_BUS_BITS = 37
_PEER_ALREADY_ENABLED = 704

#: CUDA clamps to what the device has; -5 is the most urgent of today's devices.
_MOST_URGENT = -5

_peers: dict[tuple[int, int], bool] = {}


@final
class OnDevice:
    """Context in which a device is current; puts back the one that was."""

    __slots__ = ("_before", "_device")

    def __init__(self, device: int) -> None:
        self._device = device
        self._before = device

    def __enter__(self) -> None:
        self._before = runtime.getDevice()
        runtime.setDevice(self._device)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        runtime.setDevice(self._before)


def n_devices() -> int:
    """Return the number of devices that answer."""
    return int(runtime.getDeviceCount())


def stream_priority(priority: int) -> int:
    """Map a plan's priority (0 is the most urgent) to CUDA's (lower is more urgent, 0 is last)."""
    return min(0, _MOST_URGENT + priority)


def peer_access(device: int, peer: int) -> bool:
    """Let kernels and copies of `device` reach memory of `peer`; False where they cannot."""
    if device == peer:
        return True
    known = _peers.get((device, peer))
    if known is None:
        known = _peers[device, peer] = _enable_peer(device, peer)
    return known


def _enable_peer(device: int, peer: int) -> bool:
    if not runtime.deviceCanAccessPeer(device, peer):
        return False
    with OnDevice(device):
        try:
            runtime.deviceEnablePeerAccess(peer)
        except runtime.CUDARuntimeError as error:
            return status_of(error) == _PEER_ALREADY_ENABLED
    return True


def compute_capability(device: int) -> int:
    """Return the major version of the device's compute capability."""
    return int(runtime.getDeviceProperties(device)["major"])


def device_model(device: int) -> DeviceModel:
    """Estimate the rates of a device from its attributes: clocks, processors, bus."""
    processors = runtime.deviceGetAttribute(_ATTRIBUTE_PROCESSORS, device) or 80
    clock_hz = 1e3 * (runtime.deviceGetAttribute(_ATTRIBUTE_CLOCK_KHZ, device) or 1_400_000)
    memory_hz = 1e3 * (runtime.deviceGetAttribute(_ATTRIBUTE_MEMORY_CLOCK_KHZ, device) or 1_200_000)
    bus_bytes = (runtime.deviceGetAttribute(_ATTRIBUTE_BUS_BITS, device) or 4096) / 8
    return DeviceModel(
        # 128 lanes with a fused multiply-add each; half of the peak is what kernels sustain.
        flops_per_s=0.5 * processors * 128 * 2 * clock_hz,
        bytes_per_s=0.7 * 2 * memory_hz * bus_bytes,
        launch_s=1e-6,
        fixed_s=3e-6,
        handoff_s=2e-6,
        copy_bytes_per_s=20e9,
        lanes=32,
        replay_launch_s=0.0,
    )
