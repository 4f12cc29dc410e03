"""Which waits a plan needs, and no others, by vector clocks over its streams.

A step knows, for each stream, up to which position everything has finished before it starts: from
the step before it on its own stream and from every event it waits for. A dependency on another
stream gets a wait only if that knowledge does not cover it yet. Predecessors are tried latest
first: an earlier one can be covered by what a later one knew, never the other way round, so no wait
is redundant.

Source: Mattern, "Virtual time and global states of distributed systems", 1989 (vector clocks).
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncnet_gpu.plan.lanes import Assignment
from asyncnet_gpu.plan.types import Step

Clock = list[int]


@dataclass(frozen=True, slots=True)
class Synchronised:
    """Steps in issue order with their waits.

    Attributes
    ----------
    clocks
        For each step what has finished before it starts: positions (from 1) per stream.
    positions
        For each step its position on its own stream, from 1.
    step_of
        For each node its step.
    """

    steps: tuple[Step, ...]
    n_events: int
    clocks: list[Clock]
    positions: list[int]
    step_of: list[int]


def synchronise(assignment: Assignment, reduced: list[list[int]]) -> Synchronised:
    """Order the steps and give each the waits that its dependencies need."""
    stream_of, order = assignment.stream_of, assignment.order
    n_streams = len(assignment.streams)
    step_of = [0] * len(order)
    for index, node in enumerate(order):
        step_of[node] = index
    known: list[Clock] = [[0] * n_streams for _ in range(n_streams)]
    clocks: list[Clock] = []
    positions: list[int] = []
    waits_of: list[list[int]] = []
    recorders: set[int] = set()
    for node in order:
        stream = stream_of[node]
        clock = known[stream][:]
        waits: list[int] = []
        if n_streams > 1:
            for before in sorted([step_of[p] for p in reduced[node]], reverse=True):
                other = stream_of[order[before]]
                if clock[other] < positions[before]:
                    waits.append(before)
                    clock = [a if a > b else b for a, b in zip(clock, clocks[before], strict=True)]
                    clock[other] = max(clock[other], positions[before])
            recorders.update(waits)
        clocks.append(clock)
        waits_of.append(waits)
        position = clock[stream] + 1
        positions.append(position)
        after = clock[:]
        after[stream] = position
        known[stream] = after
    events = {step: event for event, step in enumerate(sorted(recorders))}
    steps = tuple(
        Step(node, stream_of[node], tuple(sorted([events[w] for w in waits])), events.get(index))
        for index, (node, waits) in enumerate(zip(order, waits_of, strict=True))
    )
    return Synchronised(steps, len(events), clocks, positions, step_of)
