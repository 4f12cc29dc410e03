"""Plans: `make_plan` lays a placed graph out over streams, events and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

from asyncnet_gpu.errors import PlanError, message
from asyncnet_gpu.graph import Graph
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.deps import find_dependencies, reduce_dependencies
from asyncnet_gpu.plan.exact import allocate_exactly
from asyncnet_gpu.plan.lanes import serial
from asyncnet_gpu.plan.memory import lay_out, lay_out_scratch
from asyncnet_gpu.plan.streams import allocate_by_cost
from asyncnet_gpu.plan.sync import synchronise
from asyncnet_gpu.plan.types import ALLOCATORS, MODES, Plan

__all__ = ["make_plan"]

_DEFAULT_STREAMS = 8


def make_plan(
    graph: Graph, *, device_kind: str, model: DeviceModel, mode: str = "streams",
    allocator: str = "cost", max_streams: int | None = None, alignment: int = 256,
    measured: Mapping[str, float] | None = None,
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
    measured
        Seconds of nodes by name; the model estimates those that are not there.

    Raises
    ------
    PlanError
        If `mode`, `allocator` or `max_streams` is none of those, or no node has a name that was
        measured.
    """
    _check(mode, allocator, max_streams)
    measured = {} if measured is None else measured
    _check_measured(graph, measured)
    reduced = reduce_dependencies(find_dependencies(graph))
    if mode in ("serial", "graph-serial"):
        assignment = serial(graph)
        # A total order, also across devices: each step comes after the one before it.
        reduced = [[i - 1] if i else [] for i in range(len(graph.nodes))]
    else:
        limit = max_streams
        model = model.for_mode(mode)
        assignment = (
            allocate_exactly(graph, reduced, model, limit, measured)
            if allocator == "exact"
            else allocate_by_cost(graph, reduced, model, limit or _DEFAULT_STREAMS, measured)
        )
    sync = synchronise(assignment, reduced)
    layout = lay_out(graph, sync, alignment)
    scratch, scratch_bytes = lay_out_scratch(
        graph, sync, len(assignment.streams), device_kind, alignment
    )
    return Plan(
        graph, device_kind, mode, allocator, assignment.streams, sync.steps, sync.n_events,
        layout.offsets, layout.arena_bytes, scratch, scratch_bytes, alignment,
    )  # fmt: skip


def _check_measured(graph: Graph, measured: Mapping[str, float]) -> None:
    """Raise `PlanError` for durations that are none, or of another net."""
    wrong = [f"{name}: {s!r}" for name, s in measured.items() if not _is_duration(s)]
    if wrong:
        raise PlanError(
            message("plan", "measured seconds", expected="finite numbers from 0 on", got=wrong[0],
                    remedy="Pass exe.report().node_seconds.")
        )  # fmt: skip
    if measured and measured.keys().isdisjoint([node.name for node in graph.nodes]):
        raise PlanError(
            message("plan", "measured seconds of another net",
                    expected=f"names of nodes of {graph.name!r}", got=next(iter(measured)),
                    remedy="Measure this net, on the same kind of backend.")
        )  # fmt: skip


def _is_duration(seconds: object) -> bool:
    return isinstance(seconds, Real) and 0 <= float(seconds) < math.inf


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
