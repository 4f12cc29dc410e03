"""Let an elementwise node write over an input that dies with it.

The output then shares the input's storage, so that the plan orders, and the verifier proves, the
bytes like those of any other storage. Only done where it takes no concurrency away: every other
node that touches the storage writes it, and so comes before this one anyhow.
"""

from __future__ import annotations

from dataclasses import replace

from asyncnet_gpu.graph import BlobInfo, Graph, Node, Storage, rebuild
from asyncnet_gpu.specs import contiguous_strides

#: Below this the bytes do not matter, and NumPy's ufuncs leave their shortest path (0.3 us more,
#: measured) when an output is also an input.
SMALLEST_SHARED_BYTES = 4096


def _covers(blob: BlobInfo, storage: Storage) -> bool:
    whole = blob.spec.nbytes == storage.nbytes and blob.offset == 0
    return whole and blob.strides == contiguous_strides(blob.spec.shape, blob.spec.dtype.itemsize)


class _Sharing:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.root = list(range(len(graph.storages)))
        self.readers: list[set[int]] = [set() for _ in graph.storages]  # nodes that only read
        self.output = {graph.blobs[name].storage for name in graph.outputs.values()}
        for node in graph.nodes:
            written = {graph.blobs[name].storage for name in node.writes}
            for name in node.reads:
                storage = graph.blobs[name].storage
                if storage not in written:
                    self.readers[storage].add(node.id)

    def find(self, storage: int) -> int:
        while self.root[storage] != storage:
            storage = self.root[storage]
        return storage

    def candidate(self, node: Node) -> int | None:
        """Return the root storage that the first output of `node` may take over."""
        blobs, storages = self.graph.blobs, self.graph.storages
        out = blobs[node.writes[0]]
        for index in node.op.inplace:
            blob = blobs[node.reads[index]]
            root = self.find(blob.storage)
            same = [n for n in node.reads if self.find(blobs[n].storage) == root]
            if (
                storages[root].kind == "temporary"
                and storages[root].nbytes >= SMALLEST_SHARED_BYTES
                and storages[root].device == node.device
                and root not in self.output
                and self.readers[root] == {node.id}
                and all(n == blob.name for n in same)
                and blob.spec.dtype == out.spec.dtype
                and blob.spec.shape == out.spec.shape
                and _covers(blob, storages[root])
            ):
                return root
        return None

    def merge(self, node: Node, root: int) -> None:
        out = self.graph.blobs[node.writes[0]].storage
        self.root[out] = root
        self.readers[root] = self.readers[out]
        if out in self.output:
            self.output.add(root)


def share_dying_inputs(graph: Graph) -> Graph:
    """Give outputs the storage of an input that dies with the node, where that is allowed."""
    sharing = _Sharing(graph)
    for node in graph.nodes:
        if node.op.inplace and not node.op.mutates:
            root = sharing.candidate(node)
            if root is not None:
                sharing.merge(node, root)
    blobs = {}
    for name, blob in graph.blobs.items():
        root = sharing.find(blob.storage)
        blobs[name] = (
            blob
            if root == blob.storage
            else BlobInfo(name, blob.spec, root, blob.offset, blob.strides, blob.kind)
        )
    storages = tuple(
        Storage(s.id, s.device, s.nbytes, "output")
        if s.kind == "temporary" and s.id in sharing.output
        else s
        for s in graph.storages
    )
    changed = replace(graph, blobs=blobs, storages=storages)
    return rebuild(changed, graph.nodes, blobs, graph.values)
