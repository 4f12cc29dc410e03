"""The cost-aware allocator: list scheduling by upward rank and earliest finish.

Nodes are taken by the length of the longest path that they head, and each goes to the stream on
which it would finish first (`schedule` says what the model knows). Where hand-overs are dear
(threads on the CPU) small steps therefore stay together; where they are cheap (CUDA events)
branches spread out, but no further than the host can issue; steps that hold Python's lock stay on
one stream. If the modelled end is not earlier than with one stream per device, there is one.
O(nodes x streams x gaps + edges); a stream remembers a constant number of gaps.

Source: Topcuoglu, Hariri, Wu, "Performance-effective and low-complexity task scheduling" (HEFT),
2002, with its insertion into gaps: a stream's order is that of the modelled starts.
"""

from __future__ import annotations

from collections.abc import Mapping

from asyncnet_gpu.graph import Graph
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.lanes import COPY_STREAMS, Assignment, lane_kinds, serial
from asyncnet_gpu.plan.schedule import (
    Scheduler,
    in_one_stream_s,
    node_work,
    rank_order,
    upward_ranks,
)

#: Several streams must be this much faster in the model to be worth their events.
_WORTH = 0.9


def allocate_by_cost(
    graph: Graph, reduced: list[list[int]], model: DeviceModel, max_streams: int,
    measured: Mapping[str, float],
) -> Assignment:  # fmt: skip
    """Choose a stream for every node so that independent work overlaps where it pays.

    Parameters
    ----------
    reduced
        Predecessors of every node (see `deps.reduce_dependencies`).
    max_streams
        Compute streams per device; never more than the device has lanes.
    measured
        Seconds of nodes by name, where they are known.

    Returns
    -------
    Deterministic: equal graphs, equal answers (ties go to the lower index).
    """
    kinds = lane_kinds(graph)
    work = node_work(graph, kinds, model, measured)
    ranks = upward_ranks(work.seconds, reduced)
    limit = max(1, min(max_streams, model.lanes))
    order = rank_order(ranks)

    def schedule(streams: int) -> Scheduler:
        scheduler = Scheduler(work, model)
        for node in order:
            kind = kinds[node]
            most = COPY_STREAMS if kind[1] == "copy" else streams
            scheduler.put(node, reduced[node], kind, most)
        return scheduler

    several = schedule(limit)
    single_device = len({node.device for node in graph.nodes}) <= 1
    if len(several.free) <= 1:  # one stream even where more were allowed
        return serial(graph)
    if single_device:
        worth = several.makespan_s < _WORTH * in_one_stream_s(work.seconds, model.launch_s)
        return several.assignment(ranks) if worth else serial(graph)
    one = schedule(1)
    worth = several.makespan_s < _WORTH * one.makespan_s
    return (several if worth else one).assignment(ranks)
