"""A plan as text for people: one column per stream, every wait with its reason, arena use."""

from __future__ import annotations

from asyncnet_gpu.plan.deps import find_dependencies
from asyncnet_gpu.plan.types import Plan


def recorders(plan: Plan) -> dict[int, int]:
    """Return event id to the step that records it."""
    return {s.records: i for i, s in enumerate(plan.steps) if s.records is not None}


def wait_reason(plan: Plan, step: int, event: int) -> str:
    """Say which blob makes a step wait for an event."""
    source = recorders(plan)[event]
    first, then = plan.steps[source].node, plan.steps[step].node
    reason = find_dependencies(plan.graph)[then].get(first)
    return " ".join(reason).strip() if reason is not None else "order of the plan"


def _title(plan: Plan) -> list[str]:
    head = (
        f"plan of {plan.graph.name!r}: {plan.mode}, allocator {plan.allocator}, "
        f"{len(plan.steps)} steps on {len(plan.streams)} streams, {plan.n_events} events, "
        f"{plan.n_waits} waits"
    )
    lines = [head]
    for device, size in sorted(plan.arena_bytes.items()):
        total = sum(
            s.nbytes for s in plan.graph.storages
            if s.device == device and plan.offsets[s.id] is not None
        )  # fmt: skip
        share = f", {size / total:.0%} of the sum of its blobs" if total else ""
        lines.append(f"arena on {plan.device_name(device)}: {size:,} bytes{share}")
    return lines


def describe_plan(plan: Plan, *, width: int = 100) -> str:
    """Return streams as columns, steps as rows in issue order.

    Parameters
    ----------
    width
        Columns of text for the lanes; the waits follow on their right.
    """
    edges = find_dependencies(plan.graph)
    source = recorders(plan)
    n_columns = min(len(plan.streams), max(1, width // 14))
    column = max(12, min(28, width // max(1, n_columns)))
    names = [f"{plan.device_name(s.device)}/{s.id} {s.kind}" for s in plan.streams[:n_columns]]
    lines = [*_title(plan), "".join(f"{name[: column - 2]:<{column}}" for name in names)]
    for step in plan.steps:
        node = plan.node_of(step)
        lane = min(step.stream, n_columns - 1)
        cells = ["|".ljust(column)] * n_columns
        mark = f" ->e{step.records}" if step.records is not None else ""
        cells[lane] = f"{(node.name + mark)[: column - 2]:<{column}}"
        notes = []
        for event in step.waits:
            other = plan.node_of(plan.steps[source[event]])
            reason = edges[node.id].get(other.id)
            why = " ".join(reason).strip() if reason is not None else "order of the plan"
            notes.append(f"waits e{event}: {why} from {other.op.kind} {other.name!r}")
        lines.append(("".join(cells) + "; ".join(notes)).rstrip())
    return "\n".join(lines)
