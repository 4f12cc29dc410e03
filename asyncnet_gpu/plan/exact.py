"""The exact allocator: every two independent nodes on different streams, with the fewest waits.

On the transitive reduction a stream is a path. Joining a node to a predecessor on its stream saves
the wait of that edge, each node can be joined to one predecessor and one successor, so the most
waits are saved by a maximum matching of the bipartite graph (node as predecessor, node as
successor): waits = edges of the reduction - size of the matching.

Sources: Kwon et al., "Nimble: Lightweight and parallel GPU task scheduling", NeurIPS 2020,
section 4.2; Fulkerson 1956 (path cover by matching); Hopcroft, Karp 1973 (the matching).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from asyncnet_gpu.graph import Graph
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.lanes import COPY_STREAMS, Assignment, lane_kinds
from asyncnet_gpu.plan.schedule import Scheduler, node_work, rank_order, upward_ranks

_FREE = -1


def maximum_matching(
    successors: list[list[int]], n: int, preferred: Iterable[tuple[int, int]] | None = None
) -> list[int]:
    """Return for each node the predecessor matched to it, or -1: Hopcroft-Karp, iterative.

    Parameters
    ----------
    successors
        For each of `n` nodes the nodes that may follow it on its stream.
    preferred
        The same edges, those first that had better be in the matching; as far as a maximum allows.
        None takes them as they are listed.

    Notes
    -----
    O(E sqrt(V)) time.
    """
    follows = [_FREE] * n  # left -> right
    leads = [_FREE] * n  # right -> left
    if preferred is None:
        preferred = ((left, right) for left in range(n) for right in successors[left])
    for left, right in preferred:  # a greedy start also saves most phases
        if follows[left] == _FREE and leads[right] == _FREE:
            follows[left], leads[right] = right, left
    while True:
        level = _layers(successors, follows, leads, n)
        if level is None:
            return leads
        pointer = [0] * n
        for left in range(n):
            if follows[left] == _FREE:
                _augment(left, successors, follows, leads, level, pointer)


def _layers(
    successors: list[list[int]], follows: list[int], leads: list[int], n: int
) -> list[int] | None:
    """Breadth-first layers of left nodes; None when no augmenting path is left."""
    level = [0 if follows[left] == _FREE else -1 for left in range(n)]
    queue = deque(left for left in range(n) if level[left] == 0)
    found = False
    while queue:
        left = queue.popleft()
        for right in successors[left]:
            other = leads[right]
            if other == _FREE:
                found = True
            elif level[other] < 0:
                level[other] = level[left] + 1
                queue.append(other)
    return level if found else None


def _augment(
    root: int, successors: list[list[int]], follows: list[int], leads: list[int],
    level: list[int], pointer: list[int],
) -> None:  # fmt: skip
    """Depth-first search along the layers with an explicit stack; flips the path it finds."""
    stack = [root]
    path: list[int] = []  # the right node taken from each left node on the stack
    while stack:
        left = stack[-1]
        if pointer[left] == len(successors[left]):
            stack.pop()
            level[left] = -1
            if path:
                path.pop()
            continue
        right = successors[left][pointer[left]]
        pointer[left] += 1
        other = leads[right]
        if other == _FREE:
            path.append(right)
            for taken_left, taken_right in zip(stack, path, strict=True):
                follows[taken_left], leads[taken_right] = taken_right, taken_left
            return
        if level[other] == level[left] + 1:
            path.append(right)
            stack.append(other)


def allocate_exactly(
    graph: Graph, reduced: list[list[int]], model: DeviceModel, max_streams: int | None,
    measured: Mapping[str, float],
) -> Assignment:  # fmt: skip
    """Cover the reduction with paths; each is a stream.

    The model decides nothing about the number of waits. Among the matchings it prefers those that
    keep long paths on one stream, so that no hand-over lies on the critical path; it also says
    which step is issued first and which stream is urgent.

    Parameters
    ----------
    max_streams
        Compute streams per device; None is unlimited. With a limit, several paths share a stream
        (the path that begins next goes to the stream whose last node lies furthest back), and each
        device has `COPY_STREAMS` for what it receives.
    measured
        Seconds of nodes by name, where they are known.
    """
    kinds = lane_kinds(graph)
    work = node_work(graph, kinds, model, measured)
    ranks = upward_ranks(work.seconds, reduced)
    paths, path_of = _paths(kinds, reduced, work.seconds, ranks)
    stream_of_path, stream_kinds = _fold(paths, kinds, max_streams)
    scheduler = Scheduler(work, model)
    for kind in stream_kinds:
        scheduler.open(kind)
    for node in rank_order(ranks):
        scheduler.put_on(node, reduced[node], stream_of_path[path_of[node]])
    return scheduler.assignment(ranks)


def _paths(
    kinds: list[tuple[int, str]], reduced: list[list[int]], seconds: list[float],
    ranks: list[float],
) -> tuple[list[list[int]], list[int]]:  # fmt: skip
    """Return the paths that a maximum matching makes, and each node's path."""
    n = len(kinds)
    successors: list[list[int]] = [[] for _ in range(n)]
    ends = [0.0] * n  # of the longest path to each node
    edges: list[tuple[float, int, int]] = []  # minus the longest path through, from, to
    for node, before in enumerate(reduced):
        ends[node] = max([ends[p] for p in before], default=0.0) + seconds[node]
        for other in before:
            if kinds[other] == kinds[node]:
                successors[other].append(node)
                edges.append((-ends[other] - ranks[node], other, node))
    edges.sort()
    leads = maximum_matching(successors, n, [(left, right) for _, left, right in edges])
    path_of = [0] * n
    paths: list[list[int]] = []
    for node in range(n):
        if leads[node] == _FREE:
            path_of[node] = len(paths)
            paths.append([node])
        else:
            path_of[node] = path_of[leads[node]]
            paths[path_of[node]].append(node)
    return paths, path_of


def _fold(
    paths: list[list[int]], kinds: list[tuple[int, str]], max_streams: int | None
) -> tuple[list[int], list[tuple[int, str]]]:
    """Return the stream of each path, and the kind of each stream."""
    stream_of: list[int] = []
    stream_kinds: list[tuple[int, str]] = []
    last: list[int] = []
    of_kind: dict[tuple[int, str], list[int]] = {}
    for path in paths:  # ascending first node
        kind = kinds[path[0]]
        own = of_kind.setdefault(kind, [])
        limit = COPY_STREAMS if kind[1] == "copy" else max_streams or 0
        if max_streams is None or len(own) < limit:
            own.append(len(stream_kinds))
            stream_kinds.append(kind)
            last.append(path[-1])
            stream_of.append(own[-1])
        else:
            stream = min(own, key=lambda s: (last[s], s))
            last[stream] = max(last[stream], path[-1])
            stream_of.append(stream)
    return stream_of, stream_kinds
