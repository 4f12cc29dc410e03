"""Run the nodes whose inputs are all constants once, when compiling, with our own operators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from asyncnet_gpu.graph import BlobInfo, Gone, Graph, Node, Storage, keep_nodes

#: A folded result may not be larger than this, so that a small net cannot become a large one.
LARGEST_FOLDED_BYTES = 64 << 20

Array = np.ndarray[Any, Any]


def array_of(blob: BlobInfo, base: Array) -> Array:
    """Return the blob as a view of its storage's bytes, given as any contiguous array."""
    flat = base.reshape(-1).view(np.uint8)
    return np.ndarray(
        blob.spec.shape, blob.spec.dtype, buffer=flat, offset=blob.offset, strides=blob.strides
    )


def _evaluate(graph: Graph, node: Node, values: dict[int, Array]) -> list[Array] | None:
    """Return the results of a node, or None where it fails: the run then says so, with the node."""
    ins = [array_of(graph.blobs[n], values[graph.blobs[n].storage]) for n in node.reads]
    outs = [np.empty(s.shape, s.dtype) for s in graph.write_specs(node)]
    wanted = node.op.scratch(graph.read_specs(node), graph.write_specs(node), node.attrs, "cpu")
    scratch = [np.empty(s.shape, s.dtype) for s in wanted]
    try:
        node.op.bind(np, ins, outs, node.attrs, scratch)()
    except Exception:  # whatever NumPy raises, such as for an integer to a negative power
        return None
    return outs


def _foldable(graph: Graph, node: Node, known: dict[int, Array]) -> bool:
    if node.op.effect or node.op.mutates or not node.op.deterministic or node.after:
        return False
    if sum(spec.nbytes for spec in graph.write_specs(node)) > LARGEST_FOLDED_BYTES:
        return False
    return all(graph.blobs[name].storage in known for name in node.reads)


def fold_constants(graph: Graph) -> Graph:
    """Replace nodes on constants by their results.

    Parameters are not constants: they can be set between runs.
    """
    known = {
        graph.blobs[name].storage: value
        for name, value in graph.values.items()
        if graph.blobs[name].kind == "constant"
    }
    keep = [True] * len(graph.nodes)
    storages = list(graph.storages)
    values = dict(graph.values)
    folded: set[int] = set()
    for node in graph.nodes:
        if not _foldable(graph, node, known):
            continue
        results = _evaluate(graph, node, known)
        if results is None:
            continue
        keep[node.id] = False
        for name, result in zip(node.writes, results, strict=True):
            old = storages[graph.blobs[name].storage]
            storages[old.id] = Storage(old.id, old.device, old.nbytes, "constant")
            known[old.id] = result
            values[name] = result
            folded.add(old.id)
    if not folded:
        return graph
    blobs = {
        name: BlobInfo(name, b.spec, b.storage, b.offset, b.strides, "constant")
        if b.storage in folded
        else b
        for name, b in graph.blobs.items()
    }
    changed = replace(graph, blobs=blobs, storages=tuple(storages), values=values)
    return keep_nodes(changed, keep, values, Gone("a constant, computed when compiling"))
