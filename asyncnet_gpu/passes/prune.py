"""Drop nodes whose results nobody can observe."""

from __future__ import annotations

from asyncnet_gpu.graph import Gone, Graph, keep_nodes


def drop_dead_nodes(graph: Graph) -> Graph:
    """Keep what an output, a state, a barrier or an operator with an effect depends on.

    Liveness is by storage, so that a node writing through one name keeps its readers through
    another alive. O(nodes + operands), walking program order backwards.
    """
    keep = [False] * len(graph.nodes)
    needed = [False] * len(graph.storages)
    storage_of = {name: blob.storage for name, blob in graph.blobs.items()}
    for name in graph.outputs.values():
        needed[storage_of[name]] = True
    kinds = [storage.kind for storage in graph.storages]
    for node in reversed(graph.nodes):
        written = [storage_of[name] for name in node.writes]
        live = node.op.effect or any(needed[s] or kinds[s] == "state" for s in written)
        keep[node.id] = live
        if live:
            for name in node.reads:
                needed[storage_of[name]] = True
    if all(keep):
        return graph
    return keep_nodes(graph, keep, graph.values, Gone("left out: nothing observable needs it"))
