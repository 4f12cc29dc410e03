"""Results of a run: fresh arrays for the caller, filled at the end of the plan.

CuPy's pool hands a freed block out again on the stream on which it was allocated, without an event.
Outputs are therefore allocated on the caller's stream, and what we enqueue waits for an event
recorded there after the allocation: whatever the caller still has under way with a block that the
pool has taken back comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import cupy
import numpy as np
from cupy.cuda import runtime

from asyncnet_gpu.backends.cuda.bound import BoundPlan, run_with_cupy
from asyncnet_gpu.backends.cuda.device import OnDevice
from asyncnet_gpu.backends.cuda.launch import pack
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.ops.strided import copy_launch
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.specs import TensorSpec

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class OutputSlot:
    """One output of a plan.

    Attributes
    ----------
    key, blob, spec
        Key in the result, blob, and its shape and dtype.
    device
        Physical device.
    stream
        Index of the stream that writes it last, or of any stream of the device.
    launch, words, index
        Bound kernel of a strided blob, and the word of its arguments that is the target's address.
    """

    key: str
    blob: str
    spec: TensorSpec
    device: int
    stream: int
    launch: Call | None = None
    words: np.ndarray[Any, Any] | None = None
    index: int = 0


def last_writers(plan: Plan) -> dict[int, int]:
    """Return for each storage the stream of the step that writes it last.

    A barrier across devices stands on a stream of one of them and writes nothing: what passes
    through it is where it was, on its own device, since the step before.
    """
    graph = plan.graph
    found: dict[int, int] = {}
    for step in plan.steps:
        if graph.nodes[step.node].op.name in BARRIERS:
            continue
        for name in graph.nodes[step.node].writes:
            found[graph.blobs[name].storage] = step.stream
    return found


@final
class Outputs:
    """Allocates the outputs of a run and enqueues the copies into them.

    Parameters
    ----------
    malloc
        Of the slot's pool.
    replay
        Whether a graph on the first stream computes the blobs: copies then go there if they can.
    """

    def __init__(self, bound: BoundPlan, malloc: Callable[[int], Any], *, replay: bool) -> None:
        self._bound = bound
        self._malloc = malloc
        plan, graph = bound.plan, bound.plan.graph
        writers = last_writers(plan)
        slots: list[OutputSlot] = []
        for key, name in graph.outputs.items():
            blob = graph.blobs[name]
            device = bound.devices[graph.storages[blob.storage].device]
            fallback = next(i for i, s in enumerate(bound.streams) if s.device == device)
            stream = writers.get(blob.storage, fallback)
            if replay:
                stream = 0 if bound.streams[0].device == device else fallback
            slots.append(self._slot(key, name, blob.spec, device, stream))
        self.slots = tuple(slots)
        #: Streams that write outputs: they come after the caller's.
        self.streams = frozenset(slot.stream for slot in slots)

    def _slot(self, key: str, name: str, spec: TensorSpec, device: int, stream: int) -> OutputSlot:
        array = self._bound.arrays[name]
        plain = OutputSlot(key, name, spec, device, stream)
        if array.flags.c_contiguous or not array.size:
            return plain
        with OnDevice(device), cupy.cuda.using_allocator(self._malloc):
            target = cupy.ndarray(spec.shape, spec.dtype)
            launch = copy_launch(array, target)
        packed = None if launch is None else pack(launch, device, self._bound.streams[stream].ptr)
        if packed is None:
            return plain
        self._bound.note_pointer(packed)
        index = next(i for i, a in packed.pointers if a is target)
        return OutputSlot(key, name, spec, device, stream, packed.call, packed.words, index)

    def allocate(self, streams: Sequence[Any] | None) -> dict[str, Any]:
        """Return an empty array for each output, from the pool of the caller's streams.

        `streams` is the caller's stream of every device; None takes the current ones.
        """
        made = {}
        for slot in self.slots:
            with OnDevice(slot.device):
                if streams is None:
                    made[slot.key] = cupy.ndarray(slot.spec.shape, slot.spec.dtype)
                    continue
                with streams[slot.device]:
                    made[slot.key] = cupy.ndarray(slot.spec.shape, slot.spec.dtype)
        return made

    def copy(self, made: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Enqueue the copies, each on the stream that wrote the blob last."""
        for slot in self.slots:
            target = made[slot.key]
            stream = self._bound.streams[slot.stream]
            if not target.size:
                continue
            runtime.setDevice(slot.device)
            if slot.launch is not None and slot.words is not None:
                slot.words[slot.index] = target.data.ptr
                slot.launch()
                continue
            source = self._bound.current(slot.blob, inputs)
            if source.flags.c_contiguous:
                runtime.memcpyAsync(
                    target.data.ptr, source.data.ptr, target.nbytes,
                    runtime.memcpyDeviceToDevice, stream.ptr,
                )  # fmt: skip
            else:
                launch = partial(cupy.copyto, target, source)
                run_with_cupy(stream.stream, self._malloc, launch)
