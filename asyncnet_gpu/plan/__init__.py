"""Plans: `make_plan` lays a placed graph out over streams, events and memory."""

from __future__ import annotations

from asyncnet_gpu.errors import PlanError, message
from asyncnet_gpu.graph import Graph
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.deps import find_dependencies, reduce_dependencies
from asyncnet_gpu.plan.exact import allocate_exactly
from asyncnet_gpu.plan.lanes import Assignment, serial
from asyncnet_gpu.plan.memory import lay_out, lay_out_scratch
from asyncnet_gpu.plan.streams import allocate_by_cost
from asyncnet_gpu.plan.sync import synchronise
from asyncnet_gpu.plan.types import ALLOCATORS, MODES, Plan

__all__ = ["make_plan"]

_DEFAULT_STREAMS = 8


def make_plan(
    graph: Graph, *, device_kind: str, model: DeviceModel, mode: str = "streams",
    allocator: str = "cost", max_streams: int | None = None, alignment: int = 256,
) -> Plan:  # fmt: skip
    """Lay a placed graph out.

    Parameters
    ----------
    graph
        After `place`: every node reads blobs of its own device.
    device_kind
        Prefix of device names: "cpu", "cuda" or "sim".
    model
        What steps and hand-overs cost.
    mode, allocator, max_streams
        As in `asyncnet_gpu.compile`.
    alignment
        Of blobs in the arena, in bytes.

    Raises
    ------
    PlanError
        If `mode`, `allocator` or `max_streams` is none of those.
    """
    _check(mode, allocator, max_streams)
    reduced = reduce_dependencies(find_dependencies(graph))
    if mode in ("serial", "graph-serial"):
        assignment = serial(graph)
        # A total order, also across devices: each step comes after the one before it.
        reduced = [[i - 1] if i else [] for i in range(len(graph.nodes))]
    else:
        assignment = _allocate(graph, reduced, model.for_mode(mode), allocator, max_streams)
    sync = synchronise(assignment, reduced)
    layout = lay_out(graph, sync, alignment)
    scratch, scratch_bytes = lay_out_scratch(
        graph, sync, len(assignment.streams), device_kind, alignment
    )
    return Plan(
        graph, device_kind, mode, allocator, assignment.streams, sync.steps, sync.n_events,
        layout.offsets, layout.arena_bytes, scratch, scratch_bytes, alignment,
    )  # fmt: skip


def _allocate(
    graph: Graph, reduced: list[list[int]], model: DeviceModel, allocator: str,
    max_streams: int | None,
) -> Assignment:  # fmt: skip
    if allocator == "exact":
        return allocate_exactly(graph, reduced, model, max_streams)
    return allocate_by_cost(graph, reduced, model, max_streams or _DEFAULT_STREAMS)


def _check(mode: str, allocator: str, max_streams: int | None) -> None:
    for what, value, known in (("mode", mode, MODES), ("allocator", allocator, ALLOCATORS)):
        if value not in known:
            raise PlanError(
                message("plan", f"{what}={value!r}", expected=" | ".join(known), got=repr(value),
                        remedy="Choose one of them.")
            )  # fmt: skip
    if max_streams is not None and max_streams < 1:
        raise PlanError(
            message("plan", f"max_streams={max_streams}", expected="at least 1", got=max_streams,
                    remedy='Pass mode="serial" for one stream.')
        )  # fmt: skip
