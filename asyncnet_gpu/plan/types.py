"""The plan: frozen data, everything a backend needs to carry a graph out, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncnet_gpu.graph import Graph, Node

#: Simplest first.
MODES = ("serial", "streams", "graph-serial", "graph")
#: Those with several streams.
CONCURRENT = ("streams", "graph")
ALLOCATORS = ("cost", "exact")


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """An in-order queue of one device.

    Attributes
    ----------
    id
        Index in `Plan.streams`.
    device
        Logical device index.
    kind
        compute | copy | collective.
    priority
        0 is the most urgent; follows the critical path.
    """

    id: int
    device: int
    kind: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A node's place in the plan.

    Attributes
    ----------
    node
        Index in ``plan.graph.nodes``.
    stream
        Index in `Plan.streams`.
    waits
        Events that must have completed before the step starts, ascending.
    records
        Event recorded after the step, or None when nobody waits for it.
    """

    node: int
    stream: int
    waits: tuple[int, ...]
    records: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """For each device and stream the ordered steps, their events, and a place for every buffer.

    Attributes
    ----------
    graph
        The graph after all passes and placement; `Step.node` and `offsets` refer to it.
    device_kind
        "cpu", "cuda" or "sim": prefix of device names.
    mode, allocator
        One of `MODES`, one of `ALLOCATORS`.
    streams
        Indexed by id.
    steps
        In the order in which the host issues them; a topological order.
    n_events
        Events are numbered 0 .. n_events - 1; each is recorded by exactly one step.
    offsets
        For each storage its first byte in the arena of its device, or None when it is not in an
        arena (inputs bound by the caller, parameters, constants).
    arena_bytes
        Size of a slot's arena for each logical device.
    scratch
        For each step the offsets of its temporaries within its stream's scratch block.
    scratch_bytes
        Size of the scratch block of each stream; steps of one stream reuse it in turn.
    alignment
        Of every offset, in bytes.
    """

    graph: Graph
    device_kind: str
    mode: str
    allocator: str
    streams: tuple[StreamInfo, ...]
    steps: tuple[Step, ...]
    n_events: int
    offsets: tuple[int | None, ...]
    arena_bytes: Mapping[int, int]
    scratch: tuple[tuple[int, ...], ...]
    scratch_bytes: tuple[int, ...]
    alignment: int = 1

    def device_name(self, device: int) -> str:
        """Name of a logical device in plans and errors, such as ``cuda:0``."""
        return f"{self.device_kind}:{device}"

    def node_of(self, step: Step) -> Node:
        """Return the node that a step carries out."""
        return self.graph.nodes[step.node]

    @property
    def n_waits(self) -> int:
        """Number of event waits in the plan."""
        return sum(len(step.waits) for step in self.steps)

    def to_dict(self, *, lines: bool = False) -> dict[str, Any]:
        """Return the plan as JSON-able data in the published form (schema 1).

        Parameters
        ----------
        lines
            Also give each node the ``file:line`` that added it. Left out by default: equal nets
            have equal plans, wherever they were written.
        """
        from asyncnet_gpu.plan.export import plan_to_dict

        return plan_to_dict(self, lines=lines)

    def describe(self, *, width: int = 100) -> str:
        """Return the plan as text for people: lanes of streams, waits with reasons, arena use."""
        from asyncnet_gpu.plan.describe import describe_plan

        return describe_plan(self, width=width)

    def explain(self, first: str, second: str) -> str:
        """Say why `second` waits for `first` (names of nodes or blobs), or that it does not."""
        from asyncnet_gpu.plan.explain import explain_order

        return explain_order(self, first, second)
