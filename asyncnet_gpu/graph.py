"""A net with its names resolved: nodes, blobs with a place in a storage, storages.

`build_graph` turns the definition into a `Graph`; everything after it (`passes`, `place`, `plan`)
maps one frozen value to the next. Views (reshape, slice, split ...) are no nodes here: they are
blobs that lie in the storage of another blob, so that every later step reasons about bytes, not
about names. A barrier and a parameter update read and write the same blobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from asyncnet_gpu.ops.copy import COPY
from asyncnet_gpu.specs import TensorSpec, contiguous_strides

if TYPE_CHECKING:
    from asyncnet_gpu.net import AsyncNet
    from asyncnet_gpu.net_state import NodeDef
    from asyncnet_gpu.ops.base import Attrs, Op

Array = np.ndarray[Any, Any]

#: Kinds of blobs and storages whose bytes come from the caller or live as long as the executable.
PERSISTENT_KINDS = frozenset({"input", "parameter", "state", "constant"})


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes behind one or several blobs.

    Attributes
    ----------
    id
        Index in `Graph.storages`.
    device
        Logical device index.
    nbytes
        Size in bytes.
    kind
        input | parameter | state | constant | temporary | output. Only the last two lie in the
        arena of a slot.
    """

    id: int
    device: int
    nbytes: int
    kind: str


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A named value and where its bytes are.

    Attributes
    ----------
    name, spec
        As in the net.
    storage
        Index of the storage.
    offset
        First byte within the storage.
    strides
        In bytes, as in NumPy; may be negative or zero for views.
    kind
        Like `Storage.kind`.
    """

    name: str
    spec: TensorSpec
    storage: int
    offset: int
    strides: tuple[int, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Node:
    """The use of an operator.

    Attributes
    ----------
    id
        Index in `Graph.nodes`; program order.
    name, op, attrs
        As in the net.
    device
        Logical device index.
    reads, writes
        Blob names in the order of the operator's inputs and outputs.
    after
        Ids of nodes that must finish first without a blob in common.
    line
        ``file:line`` of the user code that added the node.
    """

    id: int
    name: str
    op: Op
    attrs: Attrs
    device: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    after: tuple[int, ...]
    line: str


@dataclass(frozen=True, slots=True)
class Gone:
    """What became of a node that a pass dropped.

    Attributes
    ----------
    why
        After "is": for people.
    into
        Name of the node that does its work now, or "".
    """

    why: str
    into: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in program order with every name resolved.

    Attributes
    ----------
    name
        Of the net.
    nodes, storages
        Indexed by their ids.
    blobs
        By name; every value that a node reads or writes, and every input and output.
    inputs
        Names of the blobs that the caller gives.
    outputs
        Key in the result of a run to blob name.
    values
        Arrays of parameters, states and constants, by blob name.
    gone
        Nodes that passes dropped, by their names and those of the blobs they wrote.
    """

    name: str
    nodes: tuple[Node, ...]
    blobs: Mapping[str, BlobInfo]
    storages: tuple[Storage, ...]
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]
    values: Mapping[str, Array]
    gone: Mapping[str, Gone] = field(default_factory=dict)

    def read_specs(self, node: Node) -> tuple[TensorSpec, ...]:
        """Specs of the node's inputs."""
        return tuple([self.blobs[name].spec for name in node.reads])

    def write_specs(self, node: Node) -> tuple[TensorSpec, ...]:
        """Specs of the node's outputs."""
        return tuple([self.blobs[name].spec for name in node.writes])


def layout_array(blob: BlobInfo) -> tuple[Array, int]:
    """Return an array with the blob's shape, dtype and strides over no memory, and its address.

    Only its metadata may be used: views taken of it tell offset and strides of a view of the blob.
    """
    base = np.empty(1, blob.spec.dtype)
    array = np.lib.stride_tricks.as_strided(base, blob.spec.shape, blob.strides)
    return array, base.ctypes.data


def view_blob(base: BlobInfo, name: str, view: Array, address: int, kind: str) -> BlobInfo:
    """Describe `view`, taken from the layout array of `base`, as a blob in the same storage."""
    shift = view.__array_interface__["data"][0] - address if view.size else 0
    return BlobInfo(
        name=name,
        spec=TensorSpec(view.shape, view.dtype),
        storage=base.storage,
        offset=base.offset + shift,
        strides=view.strides,
        kind=kind,
    )


class _Builder:
    """State of one `build_graph` call."""

    def __init__(self, net: AsyncNet) -> None:
        self.net = net
        self.nodes: list[Node] = []
        self.blobs: dict[str, BlobInfo] = {}
        self.storages: list[Storage] = []
        self.values: dict[str, Array] = {}
        self.node_ids: dict[str, tuple[int, ...]] = {}  # definition name -> nodes that stand for it
        self.producers: dict[str, tuple[int, ...]] = {}  # blob name -> nodes that made its bytes
        self.net_barrier: int | None = None
        self.output_blobs = frozenset(net.outputs.values())

    def new_storage(self, name: str, spec: TensorSpec, device: int, kind: str) -> None:
        storage = Storage(len(self.storages), device, spec.nbytes, kind)
        self.storages.append(storage)
        strides = contiguous_strides(spec.shape, spec.dtype.itemsize)
        self.blobs[name] = BlobInfo(name, spec, storage.id, 0, strides, kind)

    def add_sources(self) -> None:
        for blob in self.net.sources:
            self.new_storage(blob.name, blob.spec, blob.device, blob.kind)
            if blob.value is not None:
                self.values[blob.name] = blob.value

    def try_view(self, definition: NodeDef) -> bool:
        """Lay the outputs into the storage of the input; False where that cannot be.

        It cannot where the layout forbids it, and where the node is to come after others: only
        something that is executed can.
        """
        view = definition.op.view
        if view is None or definition.after:
            return False
        base = self.blobs[definition.inputs[0]]
        array, address = layout_array(base)
        try:
            views = view(array, definition.attrs)
        except ValueError:
            return False
        views = views if isinstance(views, tuple) else (views,)
        for name, part in zip(definition.outputs, views, strict=True):
            self.blobs[name] = view_blob(base, name, part, address, base.kind)
            self.producers[name] = self.producers.get(base.name, ())
        self.node_ids[definition.name] = self.producers.get(base.name, ())
        return True

    def is_packed(self, name: str, device: int) -> bool:
        """Whether a blob will be C-contiguous where a node of `device` reads it."""
        blob = self.blobs[name]
        if layout_array(blob)[0].flags.c_contiguous:
            return True
        # A copy from another device is contiguous; a replica of a value keeps its layout.
        return self.storages[blob.storage].device != device and blob.kind not in (
            "constant", "parameter",
        )  # fmt: skip

    def pack_inputs(self, definition: NodeDef) -> tuple[str, ...]:
        """Return the inputs of a node that sees bare pointers, strided views copied before it."""
        names = []
        for name in definition.inputs:
            if self.is_packed(name, definition.device):
                names.append(name)
                continue
            fresh = f"{name}.packed"
            while fresh in self.blobs or self.net.has_blob(fresh):
                fresh += "_"
            blob_spec = self.net.spec_of(name)
            self.new_storage(fresh, blob_spec, definition.device, "temporary")
            self.append(fresh, COPY, {}, definition, (name,), (fresh,), self.whole_net())
            names.append(fresh)
        return tuple(names)

    def whole_net(self) -> tuple[int, ...]:
        """Return the last barrier over the whole net: every later node comes after it."""
        return () if self.net_barrier is None else (self.net_barrier,)

    def control_edges(self, definition: NodeDef, node_id: int) -> tuple[int, ...]:
        after = {i for name in definition.after for i in self.node_ids[name]}
        after.update(self.whole_net())
        if definition.op.name == "async_net_barrier" and not definition.inputs:
            first = 0 if self.net_barrier is None else self.net_barrier
            after.update(range(first, node_id))
            self.net_barrier = node_id
        return tuple(sorted(after))

    def add_node(self, definition: NodeDef) -> None:
        reads = self.pack_inputs(definition) if definition.op.packed else definition.inputs
        node_id = len(self.nodes)
        after = self.control_edges(definition, node_id)
        for name in definition.outputs:
            if name not in self.blobs:
                kind = "output" if name in self.output_blobs else "temporary"
                self.new_storage(name, self.net.spec_of(name), definition.device, kind)
            self.producers[name] = (node_id,)
        self.node_ids[definition.name] = (node_id,)
        self.append(
            definition.name, definition.op, definition.attrs, definition, reads, definition.outputs,
            after,
        )  # fmt: skip

    def append(
        self, name: str, op: Op, attrs: Attrs, definition: NodeDef, reads: tuple[str, ...],
        writes: tuple[str, ...], after: tuple[int, ...],
    ) -> None:  # fmt: skip
        """Add a node that stands for `definition` or prepares it."""
        line, device = definition.line, definition.device
        i = len(self.nodes)
        self.nodes.append(Node(i, name, op, attrs, device, reads, writes, after, line))

    def mark_outputs(self) -> None:
        """A storage seen through an output view must stay whole until the run has ended."""
        for name in self.output_blobs:
            storage = self.storages[self.blobs[name].storage]
            if storage.kind == "temporary":
                self.storages[storage.id] = Storage(
                    storage.id, storage.device, storage.nbytes, "output"
                )


def build_graph(net: AsyncNet) -> Graph:
    """Resolve a net definition into a graph.

    Parameters
    ----------
    net
        A definition with at least one output.

    Returns
    -------
    The graph in program order; O(nodes + operands).

    Raises
    ------
    NetError
        If the net has no output.
    """
    net.check_complete()
    builder = _Builder(net)
    builder.add_sources()
    for definition in net.definitions:
        if not builder.try_view(definition):
            builder.add_node(definition)
    builder.mark_outputs()
    return Graph(
        name=net.name,
        nodes=tuple(builder.nodes),
        blobs=builder.blobs,
        storages=tuple(builder.storages),
        inputs=tuple(b.name for b in net.sources if b.kind == "input"),
        outputs=dict(net.outputs),
        values=builder.values,
    )


def keep_nodes(
    graph: Graph, keep: Sequence[bool], values: Mapping[str, Array], why: Mapping[int, Gone] | Gone
) -> Graph:
    """Return the graph with only the nodes marked in `keep`, renumbered, ids dense again.

    `why` says what became of the others: of each by its id, or of all.

    Control edges through a dropped node are carried over to what it waited for. Blobs and
    storages that nobody names any more are dropped; inputs and outputs always stay.
    """
    new_ids: dict[int, tuple[int, ...]] = {}
    nodes: list[Node] = []
    gone = dict(graph.gone)
    for node in graph.nodes:
        after = tuple(sorted({j for i in node.after for j in new_ids[i]}))
        if not keep[node.id]:
            new_ids[node.id] = after
            fate = why if isinstance(why, Gone) else why[node.id]
            gone |= dict.fromkeys((node.name, *node.writes), fate)
            continue
        new_ids[node.id] = (len(nodes),)
        nodes.append(
            Node(
                len(nodes), node.name, node.op, node.attrs, node.device,
                node.reads, node.writes, after, node.line,
            )
        )  # fmt: skip
    named = {name for node in nodes for name in (*node.reads, *node.writes)}
    named.update(graph.inputs, graph.outputs.values())
    # A view keeps the source blob in whose storage it lies: the value is listed under that name.
    used = {graph.blobs[name].storage for name in named}
    named.update(name for name in values if graph.blobs[name].storage in used)
    changed = replace(graph, gone={n: g for n, g in gone.items() if n not in named})
    return rebuild(changed, nodes, {n: b for n, b in graph.blobs.items() if n in named}, values)


def rebuild(
    graph: Graph, nodes: Sequence[Node], blobs: Mapping[str, BlobInfo], values: Mapping[str, Array]
) -> Graph:
    """Return the graph with other nodes and blobs, its storages renumbered to those in use."""
    order: dict[int, int] = {}
    moved: dict[str, BlobInfo] = {}
    for name, blob in blobs.items():
        storage = order.setdefault(blob.storage, len(order))
        moved[name] = (
            blob
            if storage == blob.storage
            else BlobInfo(name, blob.spec, storage, blob.offset, blob.strides, blob.kind)
        )
    storages = tuple(
        Storage(
            new, graph.storages[old].device, graph.storages[old].nbytes, graph.storages[old].kind
        )
        for old, new in order.items()
    )
    kept_values = {name: value for name, value in values.items() if name in moved}
    return replace(graph, nodes=tuple(nodes), blobs=moved, storages=storages, values=kept_values)
