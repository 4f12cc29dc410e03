"""Who touches which storage: what a pass asks before it takes a node away."""

from __future__ import annotations

from collections.abc import Iterable

from asyncnet_gpu.graph import BlobInfo, Graph, Node
from asyncnet_gpu.specs import contiguous_strides


def covers(graph: Graph, blob: BlobInfo) -> bool:
    """Whether the blob is its whole storage, in C order."""
    whole = blob.offset == 0 and blob.spec.nbytes == graph.storages[blob.storage].nbytes
    return whole and blob.strides == contiguous_strides(blob.spec.shape, blob.spec.dtype.itemsize)


class Users:
    """Readers and writers of every storage of a graph, in program order.

    Attributes
    ----------
    readers, writers
        Node ids by storage. A node that writes what it reads (a barrier) is in both.
    names
        By which blobs a storage is touched.
    waited_for
        Ids of nodes that others name in `Node.after`.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.readers: list[list[int]] = [[] for _ in graph.storages]
        self.writers: list[list[int]] = [[] for _ in graph.storages]
        self.names: list[set[str]] = [set() for _ in graph.storages]
        self.waited_for: set[int] = set()
        self._outputs = {graph.blobs[name].storage for name in graph.outputs.values()}
        for node in graph.nodes:
            self.waited_for.update(node.after)
            for storage in self._storages(node.reads):
                self.readers[storage].append(node.id)
            for storage in self._storages(node.writes):
                self.writers[storage].append(node.id)
            for name in (*node.reads, *node.writes):
                self.names[graph.blobs[name].storage].add(name)

    def _storages(self, names: Iterable[str]) -> set[int]:
        return {self.graph.blobs[name].storage for name in names}

    def ordered_freely(self, node: Node) -> bool:
        """Whether only blobs order the node: no control edge leads to or from it."""
        return not node.after and node.id not in self.waited_for and not node.op.effect

    def only_between(self, name: str, producer: int, consumers: set[int]) -> bool:
        """Whether the bytes are written by the producer and read by consumers alone, no view."""
        blob = self.graph.blobs[name]
        return (
            self.graph.storages[blob.storage].kind == "temporary"
            and blob.storage not in self._outputs
            and covers(self.graph, blob)
            and self.names[blob.storage] == {name}
            and self.writers[blob.storage] == [producer]
            and consumers.issuperset(self.readers[blob.storage])
        )

    def steady(self, name: str, first: int, last: int) -> bool:
        """Whether no node after `first` and up to `last` writes the blob's bytes."""
        storage = self.graph.blobs[name].storage
        return not any(first < writer <= last for writer in self.writers[storage])
