"""Nets inside a node: the branches of an If, the body of a Loop or Scan, as bodies of operators.

A nested net is imported like the one around it. What it reads from there becomes an input of its
own, in the order of first use (a *captured* blob); constants are simply shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
from onnx import GraphProto

from asyncnet_gpu import backends
from asyncnet_gpu.blob import Blob
from asyncnet_gpu.graph import BlobInfo, Graph, build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx.context import NeedsValue, NodeContext
from asyncnet_gpu.onnx.importer import Importer, Scope
from asyncnet_gpu.ops.base import Arrays, Cost, Launch, Specs
from asyncnet_gpu.passes import run_passes
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.cost import node_cost
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.specs import TensorSpec, spec


@final
class NestedNet:
    """A net as the body of an operator: planned on one stream, in memory that the node gives it.

    Parameters
    ----------
    net
        With its inputs in the order of the body's.
    outputs
        Keys of its outputs in the order of the body's.
    """

    def __init__(self, net: AsyncNet, outputs: Sequence[str]) -> None:
        #: The net of the body, the names of its inputs and the keys of its outputs, in order.
        self.net = net
        self.outputs = tuple(outputs)
        self.inputs = tuple(s.name for s in net.sources if s.kind == "input")
        self._plans: dict[str, Plan] = {}

    @cached_property
    def in_specs(self) -> Specs:
        """Specs of what it takes."""
        return tuple([self.net.spec_of(name) for name in self.inputs])

    @cached_property
    def out_specs(self) -> Specs:
        """Specs of what it gives."""
        return tuple([self.net.spec_of(self.net.outputs[key]) for key in self.outputs])

    def constant(self, index: int) -> Any:
        """Return the value of an output that is the same in every pass, else None."""
        name = self.net.outputs[self.outputs[index]]
        return next((s.value for s in self.net.sources if s.name == name), None)

    def without_first(self) -> NestedNet:
        """Return the body without its first output."""
        return NestedNet(self.net, self.outputs[1:])

    @cached_property
    def graph(self) -> Graph:
        """The net, resolved."""
        return run_passes(build_graph(self.net))

    def plan(self, device_kind: str) -> Plan:
        """Return the plan on one stream: the order, and where temporaries lie."""
        if device_kind not in self._plans:
            model = backends.load("cpu" if device_kind == "cpu" else device_kind).model()
            self._plans[device_kind] = make_plan(
                self.graph, device_kind=device_kind, model=model, mode="serial", allocator="cost",
                max_streams=1, alignment=256,
            )  # fmt: skip
        return self._plans[device_kind]

    def scratch(self, device_kind: str) -> Specs:
        """Return the arena of the plan and the scratch of its nodes, as bytes."""
        plan = self.plan(device_kind)
        sizes = (sum(plan.arena_bytes.values()), max([0, *plan.scratch_bytes]))
        return tuple([spec((max(1, n),), "uint8") for n in sizes])

    def cost(self) -> Cost:
        """Sum over the nodes."""
        costs = [node_cost(self.graph, node) for node in self.graph.nodes]
        return Cost(sum(c.flops for c in costs), sum(c.bytes for c in costs),
                    any(c.gil for c in costs))  # fmt: skip

    def bind(self, xp: Any, ins: Arrays, scratch: Arrays) -> tuple[Launch, Arrays]:
        """Bind every node; see `asyncnet_gpu.ops.bodies.Body`."""
        plan = self.plan("cpu" if xp is np else "cuda")
        arrays, copies = self._place(xp, plan, ins, scratch[0])
        launches = [_copy(xp, *pair) for pair in copies]
        for index, step in enumerate(plan.steps):
            node = plan.graph.nodes[step.node]
            reads, writes = plan.graph.read_specs(node), plan.graph.write_specs(node)
            wanted = node.op.scratch(reads, writes, node.attrs, plan.device_kind)
            room = [
                array_at(xp, s, scratch[1], offset)
                for s, offset in zip(wanted, plan.scratch[index], strict=True)
            ]
            launches.append(
                node.op.bind(xp, [arrays[n] for n in node.reads], [arrays[n] for n in node.writes],
                             node.attrs, room)
            )  # fmt: skip
        outs = [arrays[plan.graph.outputs[key]] for key in self.outputs]

        def launch() -> None:
            calls: Any = iter(launches)
            try:
                for call in calls:
                    call()
            except Exception as error:
                # The iterator knows how many are left; copies of inputs come before the steps.
                step = len(launches) - calls.__length_hint__() - 1 - len(copies)
                if step >= 0:
                    node = plan.node_of(plan.steps[step])
                    error.add_note(f"in {node.op.kind} {node.name!r} of net {self.net.name!r}")
                raise

        return launch, outs

    def _place(
        self, xp: Any, plan: Plan, ins: Arrays, arena: Any
    ) -> tuple[dict[str, Any], list[tuple[Any, Any]]]:
        """Return the array of each blob, and the inputs that have to be copied first."""
        graph = plan.graph
        buffers: dict[int, tuple[Any, int]] = {}
        copies = []
        for name, array in zip(self.inputs, ins, strict=True):
            if name not in graph.blobs:
                continue
            if not array.flags.c_contiguous:  # the graph knows inputs as contiguous
                whole = xp.empty(array.shape, array.dtype)
                copies.append((array, whole))
                array = whole
            buffers[graph.blobs[name].storage] = (_bytes_of(xp, array), 0)
        for name, value in graph.values.items():
            constant = xp.asarray(np.ascontiguousarray(value))
            buffers[graph.blobs[name].storage] = (_bytes_of(xp, constant), 0)
        for storage, offset in enumerate(plan.offsets):
            if offset is not None:
                buffers[storage] = (arena, offset)
        arrays = {name: _blob_array(xp, b, *buffers[b.storage]) for name, b in graph.blobs.items()}
        return arrays, copies


def _copy(xp: Any, source: Any, target: Any) -> Launch:
    return lambda: xp.copyto(target, source)


def _bytes_of(xp: Any, array: Any) -> Any:
    return array.reshape(-1).view(xp.uint8) if array.size else xp.empty(1, xp.uint8)


def array_at(xp: Any, s: TensorSpec, buffer: Any, offset: int) -> Any:
    """Return a contiguous array inside a buffer of bytes."""
    return _array(xp, s, buffer, offset, None)


def _array(xp: Any, s: TensorSpec, buffer: Any, offset: int, strides: Any) -> Any:
    if not s.size:
        return xp.empty(s.shape, s.dtype)
    if xp is np:
        return np.ndarray(s.shape, s.dtype, buffer=buffer, offset=offset, strides=strides)
    return xp.ndarray(s.shape, s.dtype, buffer.data + offset, strides)


def _blob_array(xp: Any, blob: BlobInfo, buffer: Any, offset: int) -> Any:
    return _array(xp, blob.spec, buffer, offset + blob.offset, blob.strides)


@final
class Captures:
    """Blobs of the net around that a nested net reads, and their inputs in it."""

    def __init__(self, around: Importer) -> None:
        self._around = around
        self.blobs: list[Blob] = []
        self._inner: dict[str, Blob] = {}
        self.importer: Importer | None = None

    def take(self, blob: Blob) -> Blob:
        """Return the nested net's input for a blob of a net around it."""
        outer = self._around.adopt(blob, blob.name)
        assert isinstance(outer, Blob)
        found = self._inner.get(outer.name)
        if found is None:
            assert self.importer is not None
            name = f"captured:{len(self.blobs)}:{outer.name}"
            found = self._inner[outer.name] = self.importer.input(name, outer.shape, outer.dtype)
            self.blobs.append(outer)
        return found

    def behind(self, names: frozenset[str]) -> frozenset[str] | None:
        """Return the model's inputs behind inputs of the nested net, None for those of a pass."""
        found: set[str] = set()
        by_inner = {
            b.name: outer for b, outer in zip(self._inner.values(), self.blobs, strict=True)
        }
        for name in names:
            if name not in by_inner:
                return None
            found |= self._around.inputs_behind(by_inner[name])
        return frozenset(found)


def import_body(
    context: NodeContext, graph: GraphProto, inputs: Sequence[tuple[str, TensorSpec]],
    attribute: str,
) -> tuple[NestedNet, list[Blob]]:  # fmt: skip
    """Import a subgraph as a nested net.

    Parameters
    ----------
    inputs
        Names and specs of what each pass gets, in order.
    attribute
        Of the node; for messages.

    Returns
    -------
    The body, and the captured blobs, which are its further inputs.
    """
    around = context.importer
    net = AsyncNet(f"{around.net.name}/{context.node.name or attribute}")
    captures = Captures(around)
    importer = Importer(net, around.budget, around.external, around.functions, captures.take)
    captures.importer = importer
    scope = Scope(context.scope, context.scope.opsets, context.scope.depth + 1,
                  context.scope.attributes)  # fmt: skip
    given: dict[str, Any] = {
        name: importer.input(f"pass:{i}:{name}", s.shape, s.dtype)
        for i, (name, s) in enumerate(inputs)
    }
    try:
        results = importer.graph(graph, given, scope)
    except NeedsValue as needed:
        # None asked for: a pass itself decides shapes, nothing that a caller could give.
        raise NeedsValue(str(needed), captures.behind(needed.inputs) or frozenset()) from needed
    keys = []
    for i, value in enumerate(results):
        if not isinstance(value, (Blob, np.ndarray)):
            context.fail(f"attribute {attribute!r}", expected="tensors as results",
                         got="a sequence",
                         remedy="Sequences exist while importing only.")  # fmt: skip
        # The same blob may be several results: the number keeps the keys apart.
        keys.append(f"{i}")
        net.output(**{keys[-1]: importer.blob(value)})
    if not keys:
        context.fail(f"attribute {attribute!r}", expected="at least one result", got="none",
                     remedy="The file is broken.")  # fmt: skip
    return NestedNet(net, keys), captures.blobs
