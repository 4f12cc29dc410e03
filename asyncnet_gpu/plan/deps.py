"""Which node must come after which, and why: dependencies by storage, and their reduction.

Two nodes that touch one storage, one of them writing, keep their program order: read-after-write
(RAW), write-after-read (WAR) or write-after-write (WAW). ``after`` edges are added as they are.
Storages that nobody writes give no edges. Only the nearest conflicts are listed; all others follow
by transitivity, so the list is of the size of the net.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from asyncnet_gpu.graph import Graph

#: Why one node comes after another: kind (RAW, WAR, WAW or after) and the blob ("" for after).
Reason = tuple[str, str]

_AFTER: Reason = ("after", "")


def find_dependencies(graph: Graph) -> list[dict[int, Reason]]:
    """Return, for each node, the nodes it must come after, each with its first reason.

    Parameters
    ----------
    graph
        Nodes in program order.

    Returns
    -------
    List indexed by node id of predecessor id to reason. O(nodes + operands + after edges): a
    reader is forgotten once a writer has come after it.
    """
    storage_of = {name: blob.storage for name, blob in graph.blobs.items()}
    writer = [-1] * len(graph.storages)
    readers: dict[int, list[int]] = {}
    result: list[dict[int, Reason]] = []
    for node in graph.nodes:
        found: dict[int, Reason] = {}
        i = node.id
        for name in node.reads:
            storage = storage_of[name]
            last = writer[storage]
            if last >= 0 and last not in found:
                found[last] = ("RAW", name)
            readers.setdefault(storage, []).append(i)
        for name in node.writes:
            storage = storage_of[name]
            for reader in readers.pop(storage, ()):
                if reader != i and reader not in found:
                    found[reader] = ("WAR", name)
            last = writer[storage]
            if 0 <= last < i and last not in found:
                found[last] = ("WAW", name)
            writer[storage] = i
        for other in node.after:
            if other not in found:
                found[other] = _AFTER
        result.append(found)
    return result


def reduce_dependencies(preds: Sequence[Iterable[int]]) -> list[list[int]]:
    """Return the transitive reduction: the only edges that no other path implies.

    Parameters
    ----------
    preds
        For each node its predecessors, all of smaller index.

    Returns
    -------
    For each node the predecessors that remain, latest first. Unique, as for every DAG.

    Notes
    -----
    The ancestors of a node are one integer used as a bit set, kept until the last successor has
    been seen; a predecessor is redundant exactly when a later one has it among its ancestors.
    Aho, Garey and Ullman, "The transitive reduction of a directed graph", SIAM J. Comput. 1972.
    """
    last_use = [0] * len(preds)
    for i, edges in enumerate(preds):
        for p in edges:
            last_use[p] = i
    ancestors: list[int] = [0] * len(preds)  # including the node itself
    reduced: list[list[int]] = []
    for i, edges in enumerate(preds):
        covered = 0
        kept: list[int] = []
        for p in sorted(edges, reverse=True):
            if not covered >> p & 1:
                kept.append(p)
                covered |= ancestors[p]
        for p in edges:
            if last_use[p] == i:
                ancestors[p] = 0
        if last_use[i] > i:
            ancestors[i] = covered | 1 << i
        reduced.append(kept)
    return reduced


def successors(preds: Sequence[Iterable[int]]) -> list[list[int]]:
    """Turn predecessor lists into successor lists, ascending."""
    succs: list[list[int]] = [[] for _ in preds]
    for i, edges in enumerate(preds):
        for p in edges:
            succs[p].append(i)
    return succs


def has_parallelism(graph: Graph) -> bool:
    """Whether some two nodes are independent.

    In program order a DAG is a chain exactly when every node depends directly on the one before.
    """
    preds: Sequence[Mapping[int, Reason]] = find_dependencies(graph)
    return any(i - 1 not in preds[i] for i in range(1, len(preds)))
