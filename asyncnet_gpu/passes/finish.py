"""Let a convolution end with the activation that follows it, for the CPU.

The activation meets each block of the output while it is in the cache; in a node of its own it
would fetch all of it from memory again.
"""

from __future__ import annotations

from dataclasses import replace

from asyncnet_gpu.graph import Gone, Graph, Node, keep_nodes
from asyncnet_gpu.ops.conv import FINISHERS, finished_conv
from asyncnet_gpu.ops.conv import OPS as CONVOLUTIONS
from asyncnet_gpu.passes.chains import SMALLEST_JOINED_BYTES
from asyncnet_gpu.passes.users import Users

_CONVOLUTIONS = frozenset(op.name for op in CONVOLUTIONS)
_DTYPES = frozenset({"float32", "float64"})  # float16 is converted block by block already


def _activation(graph: Graph, users: Users, conv: Node) -> Node | None:
    """Return the node that alone reads the convolution's output and can be carried out with it."""
    (out,) = conv.writes
    blob = graph.blobs[out]
    readers = users.readers[blob.storage]
    if len(readers) != 1 or not users.only_between(out, conv.id, set(readers)):
        return None
    node = graph.nodes[readers[0]]
    fits = (
        node.op.name in FINISHERS
        and node.device == conv.device
        and blob.spec.dtype.name in _DTYPES
        and blob.spec.nbytes >= SMALLEST_JOINED_BYTES
        and users.ordered_freely(node)
        and users.ordered_freely(conv)
    )
    return node if fits else None


def finish_convolutions(graph: Graph) -> Graph:
    """Join convolutions with the activations after them; O(nodes + operands)."""
    users = Users(graph)
    nodes, keep = list(graph.nodes), [True] * len(graph.nodes)
    gone: dict[int, Gone] = {}
    for conv in graph.nodes:
        if conv.op.name not in _CONVOLUTIONS:
            continue
        node = _activation(graph, users, conv)
        if node is not None:
            op = finished_conv(conv.op, node.op, node.attrs)
            nodes[conv.id] = replace(conv, op=op, writes=node.writes)
            keep[node.id] = False
            gone[node.id] = Gone(f"computed together with {conv.name!r}", conv.name)
    if all(keep):
        return graph
    return keep_nodes(replace(graph, nodes=tuple(nodes)), keep, graph.values, gone)
