"""What an override may use: the step's device and stream, cuBLAS, cuDNN, copies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncnet_gpu.backends.cuda import blas, dnn
from asyncnet_gpu.backends.cuda.arrays import allocate, array_over
from asyncnet_gpu.backends.cuda.copy import contiguous_copy, staged_copy
from asyncnet_gpu.backends.cuda.device import peer_access
from asyncnet_gpu.backends.cuda.launch import pack, run_in_order
from asyncnet_gpu.ops.base import Arrays
from asyncnet_gpu.ops.strided import copy_launch, nothing
from asyncnet_gpu.specs import TensorSpec

if TYPE_CHECKING:
    from asyncnet_gpu.backends.cuda.resources import Resources

Call = Callable[[], object]


class MovingCall(ABC):
    """A call that an override returns to be told where its operands are, before it first runs.

    It is told again when one of them has moved, instead of being bound anew.
    """

    @abstractmethod
    def place(self, ins: Arrays, outs: Arrays) -> None:
        """Take the arrays that it works on from now on."""

    @property
    @abstractmethod
    def largest_nbytes(self) -> int:
        """Bytes of the largest blob within; cuBLAS gets room accordingly."""

    @abstractmethod
    def __call__(self) -> object:
        """Launch."""


@dataclass(slots=True)
class Stream:
    """A stream of a slot.

    Attributes
    ----------
    device
        Physical device.
    stream
        CuPy's stream object; non-blocking.
    handle
        Its cuBLAS handle, once a product has asked for it.
    dnn_handle
        Its cuDNN handle, once a convolution has asked for it.
    """

    device: int
    stream: Any
    handle: blas.BlasHandle | None = None
    dnn_handle: dnn.DnnHandle | None = None

    @property
    def ptr(self) -> int:
        """CUDA's stream handle."""
        return int(self.stream.ptr)


@dataclass(frozen=True, slots=True)
class StepContext:
    """Handed to an override when it binds a step.

    Attributes
    ----------
    stream
        The step's.
    resources
        The slot's, for what a step owns; None where a call is bound that owns nothing.
    """

    stream: Stream
    resources: Resources | None = None

    def blas(self, out: Any) -> blas.BlasHandle | None:
        """Return the stream's cuBLAS handle, or None when cuBLAS does not take this dtype."""
        if not blas.available() or not blas.is_blas_dtype(out):
            return None
        if self.stream.handle is None:
            self.stream.handle = blas.BlasHandle(self.stream.device, self.stream.ptr)
        return self.stream.handle

    def dnn(self, out: Any) -> dnn.DnnHandle | None:
        """Return the stream's cuDNN handle, or None without cuDNN or for other dtypes."""
        if not dnn.takes(out.dtype.name):
            return None
        if self.stream.dnn_handle is None:
            self.stream.dnn_handle = dnn.make_handle(self.stream.device, self.stream.ptr)
        return self.stream.dnn_handle

    def copy(self, source: Any, target: Any) -> Call | None:
        """Return a launch that copies an array of any device into a contiguous one of this one.

        None where the layout has too many separate axes for the copy kernel.
        """
        if not target.size:
            return nothing
        device, source_device = self.stream.device, source.data.device_id
        reachable = peer_access(device, source_device)
        if not source.flags.c_contiguous:
            return self._strided(source, target) if reachable else self._gather(source, target)
        if not reachable:
            return self._staged(source.data.ptr, target.data.ptr, source.nbytes)
        return contiguous_copy(
            target.data.ptr, device, source.data.ptr, source_device, source.nbytes, self.stream.ptr
        )

    def _strided(self, source: Any, target: Any) -> Call | None:
        launch = copy_launch(source, target)
        packed = None if launch is None else pack(launch, self.stream.device, self.stream.ptr)
        return None if packed is None else packed.call

    def _staged(self, source: int, target: int, nbytes: int) -> Call:
        calls, pinned = staged_copy(target, source, nbytes, self.stream.ptr)
        return partial(run_in_order, calls, pinned)

    def _gather(self, source: Any, target: Any) -> Call | None:
        """Bring the bytes that the view spans over, then copy the view on this device."""
        item = source.dtype.itemsize
        reach = [(n - 1) * s for n, s in zip(source.shape, source.strides, strict=True)]
        low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + item
        block = allocate(high - low, self.stream.device)
        view = array_over(block, -low, TensorSpec(source.shape, source.dtype), source.strides)
        bring = self._staged(source.data.ptr + low, block.ptr, high - low)
        spread = self._strided(view, target)
        return None if spread is None else partial(run_in_order, (bring, spread), block)
