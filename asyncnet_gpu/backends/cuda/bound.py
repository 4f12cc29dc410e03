"""A plan bound to device memory: an array for each blob, calls for each step.

Inputs of the caller have no address yet. Steps that read them are bound to an address that is not
there; every word of an argument buffer that holds such an address is noted, and patched when a run
brings another array than the last one. Calls that hold arrays instead of addresses (cuBLAS, CuPy)
are bound again. In graph modes inputs have a place of their own and nothing changes between runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import cupy
import numpy as np

from asyncnet_gpu.backends.base import ProgramOptions, cannot_bind
from asyncnet_gpu.backends.cuda import overrides
from asyncnet_gpu.backends.cuda.arrays import array_over, blob_array, pretend_memory
from asyncnet_gpu.backends.cuda.blas import bind_product, workspace_bytes
from asyncnet_gpu.backends.cuda.context import MovingCall, StepContext, Stream
from asyncnet_gpu.backends.cuda.device import OnDevice
from asyncnet_gpu.backends.cuda.launch import Packed, pack
from asyncnet_gpu.backends.cuda.namespace import PRODUCTS, ProductNamespace
from asyncnet_gpu.backends.cuda.resources import Resources
from asyncnet_gpu.graph import BlobInfo, Node
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.ops.base import KernelLaunch
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.specs import TensorSpec, contiguous_strides

Call = Callable[[], object]

#: Where the addresses of inputs without a place begin: above any that a driver gives.
_NOWHERE = 1 << 58


@dataclass(frozen=True, slots=True)
class Patch:
    """A word of an argument buffer that holds an address within an input."""

    words: np.ndarray[Any, Any]
    index: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Moving:
    """A product of the library with operands that lie within inputs.

    Attributes
    ----------
    product
        a, b and the result, as they were bound first.
    places
        For each of them the input and the offset within it, or None where the address stays.
    """

    product: tuple[Any, Any, Any]
    places: tuple[tuple[str, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """Where a plan runs.

    Attributes
    ----------
    devices
        Physical device of each logical one.
    streams
        The plan's, then one for each device that has inputs or outputs and no steps.
    arenas
        Memory of each logical device.
    scratch
        Of each stream of the plan.
    """

    devices: tuple[int, ...]
    streams: list[Stream]
    arenas: Mapping[int, Any]
    scratch: Sequence[Any]


def own_room(plan: Plan, options: ProgramOptions, resources: Resources) -> Room:
    """Make streams and memory for a plan."""
    devices, graph = physical_devices(plan, options), plan.graph
    streams = [resources.stream(devices[s.device], s.priority) for s in plan.streams]
    # A stream on every device with inputs or outputs, also where no step runs.
    names = [*graph.inputs, *graph.outputs.values()]
    wanted = {devices[graph.storages[graph.blobs[n].storage].device] for n in names}
    for device in sorted(wanted - {s.device for s in streams}):
        streams.append(resources.stream(device, 0))
    arenas = {d: resources.memory(n, devices[d]) for d, n in plan.arena_bytes.items()}
    scratch = [
        resources.memory(n, s.device) if n else None
        for n, s in zip(plan.scratch_bytes, streams, strict=False)
    ]
    return Room(devices, streams, arenas, scratch)


def physical_devices(plan: Plan, options: ProgramOptions) -> tuple[int, ...]:
    """Return the physical device of each logical one."""
    graph = plan.graph
    n = 1 + max([0, *(s.device for s in graph.storages), *(s.device for s in plan.streams)])
    return tuple(range(n)) if options.devices is None else tuple(options.devices)


def planned_bytes(plan: Plan) -> int:
    """Return the bytes that a slot of the plan takes on all devices together."""
    staged = 0
    if plan.mode.startswith("graph"):
        staged = sum(plan.graph.blobs[n].spec.nbytes for n in plan.graph.inputs)
    return sum(plan.arena_bytes.values()) + sum(plan.scratch_bytes) + staged


def run_with_cupy(stream: Any, malloc: Callable[[int], Any], launch: Call) -> None:
    """Run a launch that goes through CuPy: on the step's stream, temporaries from the slot's pool.

    Blocks of the pool are reused on the stream that freed them only, so one pool serves all streams
    of a slot; captured temporaries stay as long as the program, like the graph that uses them.
    """
    with cupy.cuda.using_allocator(malloc), stream:
        launch()


def _not_bound() -> None:
    raise AssertionError("a step was issued before its inputs were set")


@final
class BoundPlan:
    """Arrays and calls of one slot.

    Parameters
    ----------
    room
        Of a plan inside a step; None makes one.

    Attributes
    ----------
    streams
        The plan's, then one for each device that has inputs or outputs and no steps.
    calls
        For each step what is called in order; none for a barrier.
    staged
        In graph modes the memory of each input.
    """

    def __init__(
        self, plan: Plan, values: Mapping[int, Any], options: ProgramOptions,
        resources: Resources, room: Room | None = None,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.stages_inputs = plan.mode.startswith("graph")
        self._resources = resources
        self._values = values
        made = own_room(plan, options, resources) if room is None else room
        self.devices, self.streams = made.devices, made.streams
        self._arenas, self._scratch = made.arenas, made.scratch
        self.arrays: dict[str, Any] = {}
        self._input_of: dict[int, str] = {}  # storage -> input
        self._blobs_of: dict[int, list[BlobInfo]] = {}  # storage -> its blobs
        for blob in plan.graph.blobs.values():
            self._blobs_of.setdefault(blob.storage, []).append(blob)
        self._base: dict[str, int] = {}  # input -> address its steps are bound to
        self.staged: dict[str, Any] = {}
        self._place_blobs()
        self._patches: dict[str, list[Patch]] = {name: [] for name in plan.graph.inputs}
        #: Calls, as step and number within it, that are made anew where an input has moved.
        self._rebinds: dict[str, set[tuple[int, int]]] = {n: set() for n in plan.graph.inputs}
        self._moving: dict[tuple[int, int], _Moving] = {}
        self._told: dict[int, MovingCall] = {}  # step -> its call
        #: Launches of ours, as step and number within it, that are the same in every run.
        self.fixed: set[tuple[int, int]] = set()
        self.calls: list[list[Call]] = [self._bind(i) for i in range(len(plan.steps))]
        if room is None:
            self._give_workspaces()

    # -- memory ------------------------------------------------------------------------------

    def _place_blobs(self) -> None:
        graph = self.plan.graph
        blocks: dict[int, tuple[Any, int]] = {}
        top = _NOWHERE
        for name in graph.inputs:
            storage = graph.storages[graph.blobs[name].storage]
            device = self.devices[storage.device]
            self._input_of[storage.id] = name
            if self.stages_inputs:
                block = self._resources.memory(storage.nbytes, device)
                self.staged[name] = block
            else:
                block = pretend_memory(top, storage.nbytes, device)
                self._base[name] = top
                top += -(-storage.nbytes // 4096) * 4096 + 4096
            blocks[storage.id] = block, 0
        for name, blob in graph.blobs.items():
            storage = graph.storages[blob.storage]
            offset = self.plan.offsets[storage.id]
            if storage.id in blocks:
                block, start = blocks[storage.id]
            elif offset is not None:
                block, start = self._arenas[storage.device], offset
            elif storage.id in self._values:
                block, start = self._values[storage.id].block, 0
            else:
                continue  # named by nobody: an input's or value's blob without a node
            self.arrays[name] = blob_array(blob, block, start)

    @property
    def largest_nbytes(self) -> int:
        """Bytes of the largest blob that a step writes, also one within another step."""
        graph = self.plan.graph
        written = [s.nbytes for n in graph.nodes for s in graph.write_specs(n)]
        return max([0, *written, *[call.largest_nbytes for call in self._told.values()]])

    def _give_workspaces(self) -> None:
        """Give each cuBLAS handle a workspace; one size for the net, equal in all modes."""
        largest = self.largest_nbytes
        for stream in self.streams:
            if stream.handle is not None:
                nbytes = workspace_bytes(largest, stream.device)
                block = self._resources.memory(nbytes, stream.device)
                stream.handle.set_workspace(block, nbytes)

    # -- steps -------------------------------------------------------------------------------

    def _reads_input(self, index: int) -> set[str]:
        """Return the inputs, not staged, in whose storage the step's blobs lie."""
        if self.stages_inputs:
            return set()
        graph = self.plan.graph
        node = graph.nodes[self.plan.steps[index].node]
        storages = {graph.blobs[n].storage for n in (*node.reads, *node.writes)}
        return {self._input_of[s] for s in storages if s in self._input_of}

    def _node(self, index: int) -> Node:
        return self.plan.graph.nodes[self.plan.steps[index].node]

    def _bind(self, index: int) -> list[Call]:
        node = self._node(index)
        if node.op.name in BARRIERS:
            return []
        inputs = self._reads_input(index)
        stream = self.streams[self.plan.steps[index].stream]
        with OnDevice(stream.device), cupy.cuda.using_allocator(self._resources.temporaries.malloc):
            override = self._override(index)
            if override is not None:
                self._note_rebind(index, inputs)
                if isinstance(override, MovingCall):
                    self._told[index] = override
                    if not inputs:
                        self._tell(index)
                return [override]
            launches = self._launches(index)
            if launches is not None:
                return self._bind_launches(index, launches, stream)
            if inputs:
                self._note_rebind(index, inputs)
                return [_not_bound]
            return [self._cupy_call(index)]

    def _operands(self, index: int) -> tuple[list[Any], list[Any], list[Any]]:
        step = self.plan.steps[index]
        graph = self.plan.graph
        node = graph.nodes[step.node]
        wanted = node.op.scratch(
            graph.read_specs(node), graph.write_specs(node), node.attrs, "cuda"
        )
        scratch = [
            array_over(
                self._scratch[step.stream], offset, spec,
                contiguous_strides(spec.shape, spec.dtype.itemsize),
            )
            for spec, offset in zip(wanted, self.plan.scratch[index], strict=True)
        ]  # fmt: skip
        arrays = self.arrays
        return [arrays[n] for n in node.reads], [arrays[n] for n in node.writes], scratch

    def _override(self, index: int) -> Call | None:
        node = self._node(index)
        bind = overrides.find(node.op.name)
        if bind is None:
            return None
        ins, outs, scratch = self._operands(index)
        stream = self.streams[self.plan.steps[index].stream]
        return bind(StepContext(stream, self._resources), ins, outs, node.attrs, scratch)

    def _tell(self, index: int) -> None:
        """Tell a call where its operands are."""
        ins, outs, _ = self._operands(index)
        self._told[index].place(ins, outs)

    def _launches(self, index: int) -> Sequence[KernelLaunch] | None:
        node = self._node(index)
        if node.op.kernel is None:
            return None
        ins, outs, scratch = self._operands(index)
        return node.op.kernel(ins, outs, node.attrs, scratch)

    def _bind_launches(
        self, index: int, launches: Sequence[KernelLaunch], stream: Stream
    ) -> list[Call]:
        calls: list[Call] = []
        for launch in launches:
            at = index, len(calls)
            call = None if launch.product is None else self._product(stream, launch.product)
            if call is not None and launch.product is not None:
                changes = self._note_moving(at, launch.product)
            else:
                packed = pack(launch, stream.device, stream.ptr)
                if packed is None:
                    continue
                call, changes = packed.call, self._note_patches(packed)
            if not changes and not self._node(index).op.effect:
                self.fixed.add(at)
            calls.append(call)
        return calls

    def _product(self, stream: Stream, product: tuple[Any, Any, Any]) -> Call | None:
        """Return a launch of cuBLAS, or None for what it does not take."""
        blas = StepContext(stream).blas(product[2])
        return None if blas is None else bind_product(blas, *product)

    def _cupy_call(self, index: int) -> Call:
        node = self._node(index)
        ins, outs, scratch = self._operands(index)
        context = StepContext(self.streams[self.plan.steps[index].stream])
        stream = context.stream.stream
        xp = ProductNamespace(context, outs[0]) if node.op.name in PRODUCTS else cupy
        try:
            with stream:  # what binding computes is read on this stream later
                launch = node.op.bind(xp, ins, outs, node.attrs, scratch)
        except (TypeError, ValueError, ArithmeticError) as error:  # not those of the device
            raise cannot_bind(node, error) from error
        return partial(run_with_cupy, stream, self._resources.temporaries.malloc, launch)

    # -- inputs ------------------------------------------------------------------------------

    def _note_rebind(self, index: int, inputs: set[str]) -> None:
        for name in inputs:
            self._rebinds[name].add((index, 0))

    def _within_input(self, address: int) -> tuple[str, int] | None:
        """Return the input and the offset in it of an address that is not there."""
        if address < _NOWHERE:
            return None
        below = (name for name, base in self._base.items() if base <= address)
        name = max(below, key=self._base.__getitem__)
        return name, address - self._base[name]

    def _note_moving(self, at: tuple[int, int], product: tuple[Any, Any, Any]) -> bool:
        """Note a product with operands within inputs; returns whether it has any."""
        places = tuple([self._within_input(array.data.ptr) for array in product])
        for place in places:
            if place is not None:
                self._rebinds[place[0]].add(at)
                self._moving[at] = _Moving(product, places)
        return at in self._moving

    def _note_patches(self, packed: Packed) -> bool:
        """Note the addresses within inputs; returns whether there are any."""
        found = False
        for index, array in packed.pointers:
            place = self._within_input(array.data.ptr)
            if place is not None:
                self._patches[place[0]].append(Patch(packed.words, index, place[1]))
                found = True
        return found

    def note_pointer(self, packed: Packed) -> None:
        """Patch a launch that is no step, such as the copy of an output that is an input."""
        self._note_patches(packed)

    def set_inputs(self, arrays: Mapping[str, Any]) -> Sequence[tuple[int, int]]:
        """Take the arrays of the next run; return the calls that were replaced."""
        rebind: set[tuple[int, int]] = set()
        for name, array in arrays.items():
            address = array.data.ptr
            if address == self._base[name]:
                continue
            self._base[name] = address
            for patch in self._patches[name]:
                patch.words[patch.index] = address + patch.offset
            if self._rebinds[name]:
                self._move_blobs(name, array)
                rebind |= self._rebinds[name]
        for at in rebind:
            self._rebind(*at)
        return tuple(rebind)

    def current(self, name: str, inputs: Mapping[str, Any]) -> Any:
        """Return a blob as an array in the run with these inputs."""
        blob = self.plan.graph.blobs[name]
        source = self._input_of.get(blob.storage)
        if source is None or self.stages_inputs:
            return self.arrays[name]
        array = inputs[source]
        return blob_array(blob, array.data.mem, array.data.ptr - array.data.mem.ptr)

    def input_streams(self) -> dict[str, frozenset[int]]:
        """Return for each input the streams whose steps touch it."""
        graph = self.plan.graph
        found: dict[str, set[int]] = {name: set() for name in graph.inputs}
        for step in self.plan.steps:
            node = graph.nodes[step.node]
            for name in (*node.reads, *node.writes):
                source = self._input_of.get(graph.blobs[name].storage)
                if source is not None:
                    found[source].add(step.stream)
        return {name: frozenset(streams) for name, streams in found.items()}

    def _move_blobs(self, name: str, array: Any) -> None:
        storage = self.plan.graph.blobs[name].storage
        start = array.data.ptr - array.data.mem.ptr
        for blob in self._blobs_of[storage]:
            self.arrays[blob.name] = blob_array(blob, array.data.mem, start)

    def _rebind(self, index: int, number: int) -> None:
        stream = self.streams[self.plan.steps[index].stream]
        moving = self._moving.get((index, number))
        if moving is not None:
            call = self._product(stream, self._moved(moving, stream.device))
            assert call is not None, "whether cuBLAS takes it is a matter of shapes and strides"
            self.calls[index][number] = call
            return
        with OnDevice(stream.device), cupy.cuda.using_allocator(self._resources.temporaries.malloc):
            if index in self._told:
                self._tell(index)
                return
            call = self._override(index)
            self.calls[index] = [self._cupy_call(index) if call is None else call]

    def _moved(self, moving: _Moving, device: int) -> tuple[Any, Any, Any]:
        """Return the operands of a product where the inputs are now."""

        def moved(array: Any, place: tuple[str, int] | None) -> Any:
            if place is None:
                return array
            memory = pretend_memory(self._base[place[0]] + place[1], array.nbytes, device)
            return array_over(memory, 0, TensorSpec(array.shape, array.dtype), array.strides)

        a, b, out = moving.product
        return moved(a, moving.places[0]), moved(b, moving.places[1]), moved(out, moving.places[2])
