"""A plan bound to memory: one array for each blob, one launch for each step.

Launches are made once; as far as they can be written down they become lists of calls that run
without Python, several steps in one list where no event stands between them. Small inputs are
copied to an address of their own. Where a step reads a large one, its list is pointed at the array
that the caller passes; a step that is no list is bound again, if the array is another than the last
time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from asyncnet_gpu.backends.base import cannot_bind
from asyncnet_gpu.backends.cpu.memory import Array, blob_array, byte_array, bytes_of
from asyncnet_gpu.backends.cpu.native.calls import Addresses, CallList, native, written
from asyncnet_gpu.backends.cpu.native.encode import Calls
from asyncnet_gpu.backends.cpu.native.library import library
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.ops.base import Launch
from asyncnet_gpu.plan.types import Plan, Step

#: Inputs up to this size are copied: 64 KiB take about 4 us, binding one step again 5 to 100.
LARGEST_STAGED_BYTES = 1 << 16

_POISON = 0xFF  # all bits set is NaN for floats and an unlikely value for the rest


class BoundPlan:
    """Arrays and launches of one slot.

    Parameters
    ----------
    values
        Storage id to bytes of the persistent storages.
    on_barrier
        Called with the node id when a run passes a barrier.
    """

    def __init__(
        self, plan: Plan, values: Mapping[int, Array], on_barrier: Callable[[int], None]
    ) -> None:
        self.plan = plan
        self._on_barrier = on_barrier
        self._values = values
        self._arenas = {d: byte_array(n) for d, n in plan.arena_bytes.items()}
        self._scratch = [byte_array(n) for n in plan.scratch_bytes]
        self.arrays: dict[str, Array] = {}
        self._bound_inputs: dict[str, Array] = {}
        self._addresses: dict[str, list[Addresses]] = {}
        self._stand_ins: dict[str, Array] = {}
        self._index_inputs()
        self._outputs_of = self._index_outputs()
        for name, blob in plan.graph.blobs.items():
            if plan.graph.storages[blob.storage].kind != "input":
                self.arrays[name] = self._place(name)
        for name, buffer in self._staged.items():
            self._see(name, buffer)

    def bind(self) -> list[Launch | Calls]:
        """Bind every step: written down as calls, or else as what its operator returns.

        `point_at_inputs` ends the binding when lists have been made of the calls.
        """
        if library() is None:
            return [
                self._bind(i) if self._inputs_there(step) else _not_bound
                for i, step in enumerate(self.plan.steps)
            ]
        there = [self._inputs_there(step) for step in self.plan.steps]
        for name in self._steps_of.keys() - self._staged.keys():
            # An address to write down; nobody reads what stands there.
            self._stand_ins[name] = byte_array(self.plan.graph.blobs[name].spec.nbytes)
            self._see(name, self._stand_ins[name])
        launches: list[Launch | Calls] = []
        for i in range(len(self.plan.steps)):
            launch = self._bind(i)
            calls = written(launch)
            launches.append(calls or (native(launch) if there[i] else _not_bound))
        for name in self._stand_ins:
            steps = self._steps_of[name]
            self._steps_of[name] = [i for i in steps if not isinstance(launches[i], Calls)]
        return launches

    def point_at_inputs(self, lists: Sequence[CallList]) -> None:
        """Find in the lists made of the launches what `set_inputs` has to point at an input."""
        for name, buffer in self._stand_ins.items():
            found = [calls.addresses_within(buffer) for calls in lists]
            self._addresses[name] = [addresses for addresses in found if addresses.places.size]
        self._stand_ins = {}

    def _see(self, name: str, buffer: Array) -> None:
        """Let an input and its views be seen in a buffer."""
        for blob in self._blobs_of[name]:
            self.arrays[blob.name] = blob_array(blob, buffer)

    def _index_inputs(self) -> None:
        """Find, for each input, the blobs in its storage and the steps that touch them."""
        graph = self.plan.graph
        self._blobs_of = {
            name: [b for b in graph.blobs.values() if b.storage == graph.blobs[name].storage]
            for name in graph.inputs
        }
        touched: dict[int, list[int]] = {}
        for i, step in enumerate(self.plan.steps):
            node = graph.nodes[step.node]
            for storage in {graph.blobs[n].storage for n in (*node.reads, *node.writes)}:
                touched.setdefault(storage, []).append(i)
        self._steps_of = {name: touched.get(graph.blobs[name].storage, []) for name in graph.inputs}
        sizes = {name: graph.blobs[name].spec.nbytes for name in graph.inputs}
        self._staged = {
            name: byte_array(nbytes)
            for name, nbytes in sizes.items()
            if nbytes <= LARGEST_STAGED_BYTES
        }

    def _inputs_there(self, step: Step) -> bool:
        node = self.plan.graph.nodes[step.node]
        return all(n in self.arrays for n in (*node.reads, *node.writes))

    def _place(self, name: str) -> Array:
        blob = self.plan.graph.blobs[name]
        storage = self.plan.graph.storages[blob.storage]
        offset = self.plan.offsets[storage.id]
        if offset is None:
            return blob_array(blob, self._values[storage.id])
        return blob_array(blob, self._arenas[storage.device], offset)

    def _bind(self, index: int) -> Launch:
        step = self.plan.steps[index]
        graph = self.plan.graph
        node = graph.nodes[step.node]
        if node.op.name in BARRIERS:
            return partial(self._on_barrier, node.id)
        ins = [self.arrays[n] for n in node.reads]
        outs = [self.arrays[n] for n in node.writes]
        wanted = node.op.scratch(graph.read_specs(node), graph.write_specs(node), node.attrs, "cpu")
        block = self._scratch[step.stream]
        scratch = [
            np.ndarray(s.shape, s.dtype, buffer=block, offset=offset)
            for s, offset in zip(wanted, self.plan.scratch[index], strict=True)
        ]
        try:
            return node.op.bind(np, ins, outs, node.attrs, scratch)
        except Exception as error:  # whatever NumPy raises: say of which node
            raise cannot_bind(node, error) from error

    def set_inputs(self, inputs: Mapping[str, Array]) -> list[tuple[int, Launch]]:
        """Take the arrays of the next run; return the steps that have another launch now."""
        changed = []
        for name, array in inputs.items():
            staged = self._staged.get(name)
            if staged is not None:
                staged[:] = bytes_of(array)
            elif self._bound_inputs.get(name) is not array:
                changed.append(name)
        if not changed:
            return []
        steps: set[int] = set()
        for name in changed:
            array = inputs[name]
            self._bound_inputs[name] = array
            buffer = bytes_of(array)
            self._see(name, buffer)
            for addresses in self._addresses.get(name, ()):
                addresses.move(buffer.ctypes.data)
            steps.update(self._steps_of[name])
        return [(index, self._bind(index)) for index in steps]

    def outputs(self, copied: Mapping[str, Array]) -> dict[str, Array]:
        """Return fresh copies of the output blobs: the next run overwrites the slot's own.

        Parameters
        ----------
        copied
            Those that `outputs_of` has copied already.
        """
        return {
            key: copied[key] if key in copied else self.arrays[name].copy()
            for key, name in self.plan.graph.outputs.items()
        }

    def outputs_of(self, stream: int) -> dict[str, Array]:
        """Return copies of the outputs that a stream alone writes; it has ended."""
        return {key: self.arrays[name].copy() for key, name in self._outputs_of.get(stream, ())}

    def _index_outputs(self) -> dict[int, list[tuple[str, str]]]:
        """Find, for each stream, key and blob of the outputs that it alone writes."""
        graph = self.plan.graph
        writer: dict[int, int] = {}
        for step in self.plan.steps:
            for name in graph.nodes[step.node].writes:
                storage = graph.blobs[name].storage
                # Written by several streams (-1): nobody may copy it before all have ended.
                first = writer.setdefault(storage, step.stream)
                writer[storage] = step.stream if first == step.stream else -1
        found: dict[int, list[tuple[str, str]]] = {}
        for key, name in graph.outputs.items():
            stream = writer.get(graph.blobs[name].storage, -1)
            if stream >= 0:
                found.setdefault(stream, []).append((key, name))
        return found

    def poison(self) -> None:
        """Fill everything a run should write before it reads, so that a missing wait shows."""
        for buffer in (*self._arenas.values(), *self._scratch):
            buffer[:] = _POISON


def _not_bound() -> None:
    raise AssertionError("an input was never given")  # the executor checks names before
