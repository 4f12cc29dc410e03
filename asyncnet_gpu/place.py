"""Put blobs where they are read: Graph -> Graph with `Copy` nodes for cross-device edges.

A blob read on another device than its own is copied once for each version and consumer device. The
copy comes right after the node that made the version (at the front for inputs), so that it can
overlap with everything that follows. Constants and parameters that nobody updates get a replica on
the other device when the executable is made, instead of a copy in each run.
"""

from __future__ import annotations

from dataclasses import replace

from asyncnet_gpu.errors import PlanError, message
from asyncnet_gpu.graph import Array, BlobInfo, Graph, Node, Storage
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.ops.copy import COPY
from asyncnet_gpu.specs import contiguous_strides

_FRONT = -1  # version of a storage before any node has written it


class _Placer:
    """State of one `place` call."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.blobs: dict[str, BlobInfo] = dict(graph.blobs)
        self.storages: list[Storage] = list(graph.storages)
        self.values: dict[str, Array] = dict(graph.values)
        self.node_names = {node.name for node in graph.nodes}
        self.source_of = {graph.blobs[name].storage: name for name in graph.values}
        self.version = [_FRONT] * len(graph.storages)  # node that wrote the storage last
        self.barrier = [_FRONT] * len(graph.storages)  # barrier over the storage since then
        self.updated = {
            graph.blobs[name].storage
            for node in graph.nodes
            if node.op.name not in BARRIERS
            for name in node.writes
        }
        self.copies: dict[tuple[str, int, int], str] = {}  # blob, version, device -> copied blob
        self.replicas: dict[tuple[int, int], int] = {}  # storage, device -> replica storage
        self.inserted: dict[int, list[Node]] = {}  # version -> copies that follow its writer

    def visit(self, node: Node) -> Node:
        """Return the node with its reads and control edges redirected; ids are still the old."""
        if node.op.name in BARRIERS:
            for name in node.writes:
                self.barrier[self.graph.blobs[name].storage] = node.id
            return node
        self._check_writes(node)
        reads = []
        after = set(node.after)
        for name in node.reads:
            storage = self.graph.storages[self.graph.blobs[name].storage]
            if storage.device == node.device:
                reads.append(name)
                continue
            reads.append(self._local(name, storage, node))
            if self.barrier[storage.id] != _FRONT:
                # The copy may have been made before the barrier; its reader must come after.
                after.add(self.barrier[storage.id])
        for name in node.writes:
            written = self.graph.blobs[name].storage
            self.version[written], self.barrier[written] = node.id, _FRONT
        if tuple(reads) == node.reads:
            return node
        return replace(node, reads=tuple(reads), after=tuple(sorted(after)))

    def _check_writes(self, node: Node) -> None:
        for name in node.writes:
            storage = self.graph.storages[self.graph.blobs[name].storage]
            if storage.device != node.device:
                raise PlanError(
                    message(
                        f"node {node.name!r} at {node.line}", f"updates {name!r} in place",
                        expected=f"a blob of device {node.device}, where the node runs",
                        got=f"a blob of device {storage.device}",
                        remedy=f"Add the node inside `with net.device({storage.device}):`.",
                    )
                )  # fmt: skip

    def _local(self, name: str, storage: Storage, node: Node) -> str:
        """Return the name of the blob on the node's device, adding a copy or replica of it."""
        key = (name, self.version[storage.id], node.device)
        if key not in self.copies:
            constant = storage.kind in ("constant", "parameter") and storage.id not in self.updated
            made = self._replica(name, node.device) if constant else self._copy(key, node)
            self.copies[key] = made
        return self.copies[key]

    def _fresh(self, name: str, device: int) -> str:
        fresh = f"{name}@{device}"
        count = 1
        while fresh in self.blobs or fresh in self.node_names:
            count += 1
            fresh = f"{name}@{device}.{count}"
        return fresh

    def _copy(self, key: tuple[str, int, int], reader: Node) -> str:
        name, version, device = key
        spec = self.graph.blobs[name].spec
        fresh = self._fresh(name, device)
        storage = Storage(len(self.storages), device, spec.nbytes, "temporary")
        strides = contiguous_strides(spec.shape, spec.dtype.itemsize)
        self.storages.append(storage)
        self.blobs[fresh] = BlobInfo(fresh, spec, storage.id, 0, strides, "temporary")
        self.node_names.add(fresh)
        copy = Node(-1, fresh, COPY, {}, device, (name,), (fresh,), (), reader.line)
        self.inserted.setdefault(version, []).append(copy)
        return fresh

    def _replica(self, name: str, device: int) -> str:
        """Lay the blob into a replica of its storage; the value is the same array."""
        blob = self.graph.blobs[name]
        source = self.source_of[blob.storage]
        known = self.replicas.get((blob.storage, device))
        if known is None:
            original = self.graph.storages[blob.storage]
            known = len(self.storages)
            self.storages.append(Storage(known, device, original.nbytes, original.kind))
            self.replicas[blob.storage, device] = known
            base = self._fresh(source, device)
            self.blobs[base] = replace(self.graph.blobs[source], name=base, storage=known)
            self.values[base] = self.values[source]
            self.copies[source, _FRONT, device] = base
            if source == name:
                return base
        fresh = self._fresh(name, device)
        self.blobs[fresh] = replace(blob, name=fresh, storage=known)
        return fresh


def place(graph: Graph) -> Graph:
    """Insert a copy for each blob that is read on another device than its own.

    Parameters
    ----------
    graph
        After all passes.

    Returns
    -------
    A graph in which every node but a barrier reads and writes blobs of its own device, except
    `Copy` nodes, which read one blob of another. The same graph when there is one device.

    Raises
    ------
    PlanError
        If a node updates a blob of another device in place.
    """
    devices = {node.device for node in graph.nodes} | {s.device for s in graph.storages}
    if len(devices) <= 1:
        return graph
    placer = _Placer(graph)
    visited = [placer.visit(node) for node in graph.nodes]
    nodes: list[Node] = []
    new_ids: dict[int, int] = {}
    for copy in placer.inserted.get(_FRONT, ()):
        nodes.append(replace(copy, id=len(nodes)))
    for node in visited:
        new_ids[node.id] = len(nodes)
        after = tuple([new_ids[i] for i in node.after])
        nodes.append(replace(node, id=len(nodes), after=after))
        for copy in placer.inserted.get(node.id, ()):
            nodes.append(replace(copy, id=len(nodes)))
    return Graph(
        name=graph.name,
        nodes=tuple(nodes),
        blobs=placer.blobs,
        storages=tuple(placer.storages),
        inputs=graph.inputs,
        outputs=graph.outputs,
        values=placer.values,
        gone=graph.gone,
    )


def replica_names(graph: Graph, name: str) -> tuple[str, ...]:
    """Return the blobs that hold the value `name` on any device, itself first."""
    value = graph.values[name]
    return (name, *(n for n, v in graph.values.items() if v is value and n != name))
