"""Bytes of the arenas that hold something, over the time of a run."""

from __future__ import annotations

from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.timeline import TracedRun


def live_bytes(plan: Plan, run: TracedRun) -> dict[int, list[tuple[float, int]]]:
    """Return for each device when the number of live bytes changed, and to what.

    A storage is live from the start of the first step that touches it to the end of the last one;
    an output until the run has ended, when all is free again.
    """
    graph = plan.graph
    born: dict[int, float] = {}
    dies: dict[int, float] = {}
    for part in run.slices:
        node = plan.node_of(plan.steps[part.step])
        for name in (*node.reads, *node.writes):
            storage = graph.blobs[name].storage
            if plan.offsets[storage] is None:
                continue
            born[storage] = min(part.start_s, born.get(storage, part.start_s))
            dies[storage] = max(part.end_s, dies.get(storage, part.end_s))
    changes: dict[int, list[tuple[float, int]]] = {device: [] for device in plan.arena_bytes}
    for storage, start_s in born.items():
        info = graph.storages[storage]
        end_s = run.elapsed_s if info.kind == "output" else dies[storage]
        changes.setdefault(info.device, []).extend([(start_s, info.nbytes), (end_s, -info.nbytes)])
    return {device: _summed(points) for device, points in changes.items()}


def _summed(changes: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Add up; at one instant what ends goes before what begins, and only the last sum stays."""
    sums: dict[float, int] = {}
    live = 0
    for at_s, change in sorted(changes):
        live += change
        sums[at_s] = live
    return sorted(sums.items())
