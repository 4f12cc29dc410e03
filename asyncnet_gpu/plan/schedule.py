"""What both allocators believe about time: durations, ranks, and a list schedule over streams.

A step starts when its stream is free, its predecessors have ended (a hand-over between streams
costs `DeviceModel.handoff_s`), the host has had the time to issue it after all that were placed
before it (`launch_s` each), and, where streams are threads, nobody else holds Python's lock if it
needs it for its whole duration (`DeviceModel.locks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from asyncnet_gpu.graph import Graph
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.plan.cost import DeviceModel, node_cost
from asyncnet_gpu.plan.lanes import Assignment
from asyncnet_gpu.plan.types import StreamInfo

#: Gaps that a stream remembers; the shortest is forgotten first. Keeps a schedule near-linear.
_MOST_GAPS = 16


@dataclass(frozen=True, slots=True)
class Work:
    """Work of every node.

    Attributes
    ----------
    seconds
        Duration on an idle device: measured, or the model's estimate.
    locked
        Whether the node holds Python's lock all the time, on a backend whose streams are threads.
    """

    seconds: list[float]
    locked: list[bool]


def node_work(
    graph: Graph, kinds: list[tuple[int, str]], model: DeviceModel, measured: Mapping[str, float]
) -> Work:
    """Return what every node takes: as `measured` by name, else modelled; barriers nothing."""
    seconds: list[float] = []
    locked = [False] * len(graph.nodes)
    for node in graph.nodes:
        if node.op.name in BARRIERS:
            seconds.append(0.0)
        elif kinds[node.id][1] == "copy":
            moved = graph.blobs[node.writes[0]].spec.nbytes
            modelled_s = model.fixed_s + moved / model.copy_bytes_per_s
            seconds.append(measured.get(node.name, modelled_s))
        else:
            cost = node_cost(graph, node)
            own_s = measured.get(node.name)
            seconds.append(model.seconds(cost) if own_s is None else own_s)
            locked[node.id] = model.locks(cost, seconds[-1])
    return Work(seconds, locked)


def upward_ranks(seconds: list[float], reduced: list[list[int]]) -> list[float]:
    """Return for every node the longest modelled path from its start to the end of the net."""
    ranks = list(seconds)
    for node in range(len(seconds) - 1, -1, -1):
        rank = ranks[node]
        for before in reduced[node]:
            through = rank + seconds[before]
            if through > ranks[before]:
                ranks[before] = through
    return ranks


def in_one_stream_s(seconds: list[float], launch_s: float) -> float:
    """Return how long the nodes take one after the other, each issued before it starts."""
    end_s = host_s = 0.0
    for own in seconds:
        host_s += launch_s
        end_s = (end_s if end_s > host_s else host_s) + own
    return end_s


def rank_order(ranks: list[float]) -> list[int]:
    """Return the nodes, most urgent first: a topological order, since ids are one too."""
    return sorted(range(len(ranks)), key=lambda n: (-ranks[n], n))


@final
class Scheduler:
    """A schedule under construction: nodes are put one after the other, most urgent first."""

    def __init__(self, work: Work, model: DeviceModel) -> None:
        self.work = work
        self.handoff_s = model.handoff_s
        self.launch_s = model.launch_s
        self.of_kind: dict[tuple[int, str], list[int]] = {}
        self.free: list[float] = []
        self.gaps: list[list[tuple[float, float]]] = []
        self.kinds: list[tuple[int, str]] = []
        self.stream_of = [-1] * len(work.seconds)
        self.starts = [0.0] * len(work.seconds)
        self.ends = [0.0] * len(work.seconds)
        self.host_s = 0.0
        self.lock_free_s = 0.0
        self.lock_stream = -1  # where Python's lock was held last

    def open(self, kind: tuple[int, str]) -> int:
        """Add a stream."""
        self.kinds.append(kind)
        self.free.append(0.0)
        self.gaps.append([])
        self.of_kind.setdefault(kind, []).append(len(self.free) - 1)
        return len(self.free) - 1

    def put(self, node: int, before: list[int], kind: tuple[int, str], limit: int) -> None:
        """Place a node on the stream of its kind where it starts first, in a gap or at the end.

        A node that holds Python's lock prefers the stream that held it last: elsewhere it must
        start earlier, not equally early.
        """
        ends, stream_of, handoff_s = self.ends, self.stream_of, self.handoff_s
        earliest = self._earliest(node)
        arrivals = [(ends[p], stream_of[p]) for p in before]
        candidates = self.of_kind.get(kind, [])
        if self.work.locked[node] and self.lock_stream in candidates:
            candidates = [self.lock_stream, *candidates]
        best, best_start, best_gap = -1, float("inf"), -1
        for stream in candidates:
            ready = earliest
            for end, other in arrivals:
                arrival = end if other == stream else end + handoff_s
                if arrival > ready:
                    ready = arrival
            start, gap = self._first_fit(stream, ready, self.work.seconds[node])
            if start < best_start:
                best, best_start, best_gap = stream, start, gap
        if len(self.of_kind.get(kind, ())) < limit:
            start = max([earliest, *[end + handoff_s for end, _ in arrivals]])
            if start < best_start:
                best, best_start, best_gap = self.open(kind), start, -1
        self._place(node, best, best_start, best_gap)

    def _first_fit(self, stream: int, ready: float, seconds: float) -> tuple[float, int]:
        """Return when a stream could begin a node, and in which gap; -1 is after its last node."""
        free = self.free[stream]
        if ready >= free:
            return ready, -1
        best, best_gap = free, -1
        for i, (begin, end) in enumerate(self.gaps[stream]):
            start = ready if ready > begin else begin
            if start < best and start + seconds <= end:
                best, best_gap = start, i
        return best, best_gap

    def put_on(self, node: int, before: list[int], stream: int) -> None:
        """Place a node on a given stream."""
        start = max(self.free[stream], self._earliest(node))
        for other in before:
            ready = self.ends[other]
            if self.stream_of[other] != stream:
                ready += self.handoff_s
            start = max(start, ready)
        self._place(node, stream, start)

    def _earliest(self, node: int) -> float:
        """When the host has issued the node and Python's lock is free for it."""
        self.host_s += self.launch_s
        return max(self.host_s, self.lock_free_s) if self.work.locked[node] else self.host_s

    def _place(self, node: int, stream: int, start: float, gap: int = -1) -> None:
        self.stream_of[node] = stream
        self.starts[node] = start
        self.ends[node] = end = start + self.work.seconds[node]
        gaps = self.gaps[stream]
        if gap < 0:
            left = [(self.free[stream], start)]
            self.free[stream] = end
        else:
            begin, until = gaps.pop(gap)
            left = [(begin, start), (end, until)]
        gaps.extend([g for g in left if g[1] > g[0]])
        while len(gaps) > _MOST_GAPS:
            gaps.remove(min(gaps, key=lambda g: (g[1] - g[0], g[0])))
        if self.work.locked[node]:
            self.lock_free_s, self.lock_stream = end, stream

    @property
    def makespan_s(self) -> float:
        """End of the last node."""
        return max(self.ends, default=0.0)

    def assignment(self, ranks: list[float]) -> Assignment:
        """Number the streams by device and kind, the most urgent first; issue by start."""
        urgent = [0.0] * len(self.free)
        for node, stream in enumerate(self.stream_of):
            urgent[stream] = max(urgent[stream], ranks[node])
        place = sorted(range(len(urgent)), key=lambda s: (*self.kinds[s], -urgent[s], s))
        new = {old: i for i, old in enumerate(place)}
        by_urgency = sorted(range(len(urgent)), key=lambda s: (-urgent[s], s))
        priority = {s: i for i, s in enumerate(by_urgency)}
        streams = tuple(
            StreamInfo(new[old], self.kinds[old][0], self.kinds[old][1], priority[old])
            for old in place
        )
        starts = self.starts
        order = sorted(range(len(starts)), key=lambda n: (starts[n], -ranks[n], n))
        return Assignment(streams, [new[s] for s in self.stream_of], order)
