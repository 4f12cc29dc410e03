"""The cost-aware allocator: list scheduling by upward rank and earliest finish.

Nodes are taken by the length of the longest path that they head, and each goes to the stream on
which it would finish first, where following a predecessor on its own stream is free and a hand-over
from another costs `DeviceModel.handoff_s`. Where hand-overs are dear (threads on the CPU) small
steps therefore stay together; where they are cheap (CUDA events) branches spread out. If the
modelled end is not earlier than with one stream per device, there is one.
O(nodes x streams + edges).

Source: Topcuoglu, Hariri, Wu, "Performance-effective and low-complexity task scheduling" (HEFT),
2002; without insertion into gaps, which would break stream order.
"""

from __future__ import annotations

from asyncnet_gpu.graph import Graph
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.plan.cost import DeviceModel, node_cost
from asyncnet_gpu.plan.lanes import Assignment, lane_kinds, serial
from asyncnet_gpu.plan.types import StreamInfo

#: Several streams must be this much faster in the model to be worth their events.
_WORTH = 0.9


def node_seconds(graph: Graph, kinds: list[tuple[int, str]], model: DeviceModel) -> list[float]:
    """Return the modelled duration of every node."""
    seconds = []
    for node in graph.nodes:
        if node.op.name in BARRIERS:
            seconds.append(0.0)
        elif kinds[node.id][1] == "copy":
            moved = graph.blobs[node.writes[0]].spec.nbytes
            seconds.append(model.fixed_s + moved / model.copy_bytes_per_s)
        else:
            seconds.append(model.seconds(node_cost(graph, node)))
    return seconds


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


class _Scheduler:
    def __init__(self, seconds: list[float], handoff_s: float) -> None:
        self.seconds = seconds
        self.handoff_s = handoff_s
        self.of_kind: dict[tuple[int, str], list[int]] = {}
        self.free: list[float] = []
        self.kinds: list[tuple[int, str]] = []
        self.stream_of = [-1] * len(seconds)
        self.starts = [0.0] * len(seconds)
        self.ends = [0.0] * len(seconds)

    def open(self, kind: tuple[int, str]) -> int:
        self.kinds.append(kind)
        self.free.append(0.0)
        self.of_kind.setdefault(kind, []).append(len(self.free) - 1)
        return len(self.free) - 1

    def put(self, node: int, before: list[int], kind: tuple[int, str], limit: int) -> None:
        """Place a node on the stream of its kind where it starts first."""
        ends, stream_of, handoff_s = self.ends, self.stream_of, self.handoff_s
        arrivals = [(ends[p], stream_of[p]) for p in before]
        candidates = self.of_kind.get(kind, ())
        best, best_start = -1, float("inf")
        for stream in candidates:
            start = self.free[stream]
            for end, other in arrivals:
                ready = end if other == stream else end + handoff_s
                if ready > start:
                    start = ready
            if start < best_start:
                best, best_start = stream, start
        if len(candidates) < limit:
            start = max([end + handoff_s for end, _ in arrivals], default=0.0)
            if start < best_start:
                best, best_start = self.open(kind), start
        stream_of[node] = best
        self.starts[node] = best_start
        self.ends[node] = self.free[best] = best_start + self.seconds[node]


def allocate_by_cost(
    graph: Graph, reduced: list[list[int]], model: DeviceModel, max_streams: int
) -> Assignment:
    """Choose a stream for every node so that independent work overlaps where it pays.

    Parameters
    ----------
    reduced
        Predecessors of every node (see `deps.reduce_dependencies`).
    max_streams
        Compute streams per device; never more than the device has lanes.

    Returns
    -------
    Deterministic: equal graphs, equal answers (ties go to the lower index).
    """
    kinds = lane_kinds(graph)
    seconds = node_seconds(graph, kinds, model)
    ranks = upward_ranks(seconds, reduced)
    limit = max(1, min(max_streams, model.lanes))
    order = sorted(range(len(seconds)), key=lambda n: (-ranks[n], n))

    def schedule(streams: int) -> _Scheduler:
        scheduler = _Scheduler(seconds, model.handoff_s)
        for node in order:
            kind = kinds[node]
            scheduler.put(node, reduced[node], kind, 1 if kind[1] == "copy" else streams)
        return scheduler

    several = schedule(limit)
    single_device = len({node.device for node in graph.nodes}) <= 1
    one_s = sum(seconds) if single_device else max(schedule(1).ends, default=0.0)
    if max(several.ends, default=0.0) >= _WORTH * one_s:
        return serial(graph) if single_device else _numbered(schedule(1), ranks)
    return _numbered(several, ranks)


def _numbered(scheduler: _Scheduler, ranks: list[float]) -> Assignment:
    """Number the streams by device and kind, the most urgent first."""
    urgent = [0.0] * len(scheduler.free)
    for node, stream in enumerate(scheduler.stream_of):
        urgent[stream] = max(urgent[stream], ranks[node])
    place = sorted(range(len(urgent)), key=lambda s: (*scheduler.kinds[s], -urgent[s], s))
    # Copies first in urgency: what they bring is waited for elsewhere.
    new = {old: i for i, old in enumerate(place)}
    by_urgency = sorted(range(len(urgent)), key=lambda s: -urgent[s])
    priority = {s: i for i, s in enumerate(by_urgency)}
    streams = tuple(
        StreamInfo(new[old], scheduler.kinds[old][0], scheduler.kinds[old][1], priority[old])
        for old in place
    )
    starts = scheduler.starts
    order = sorted(range(len(starts)), key=lambda n: (starts[n], -ranks[n], n))
    return Assignment(streams, [new[s] for s in scheduler.stream_of], order)
