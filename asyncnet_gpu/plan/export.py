"""A plan as JSON-able data in the published form (schema 1), so that anyone can check it."""

from __future__ import annotations

from typing import Any

from asyncnet_gpu.plan.types import Plan


def plan_to_dict(plan: Plan, *, lines: bool = False) -> dict[str, Any]:
    """Return streams, nodes, blobs, storages and steps with integer ids and sizes in bytes.

    With `lines`, nodes say where they were added.
    """
    graph = plan.graph
    named = {name for node in graph.nodes for name in (*node.reads, *node.writes)}
    return {
        "schema": 1,
        "net": graph.name,
        "mode": plan.mode,
        "allocator": plan.allocator,
        "streams": [
            {"id": s.id, "device": plan.device_name(s.device), "kind": s.kind,
             "priority": s.priority, "scratch_bytes": plan.scratch_bytes[s.id]}
            for s in plan.streams
        ],
        "nodes": [
            {"id": n.id, "name": n.name, "op": n.op.kind, "device": plan.device_name(n.device),
             "reads": list(n.reads), "writes": list(n.writes), "after": list(n.after),
             **({"line": n.line} if lines else {})}
            for n in graph.nodes
        ],
        "blobs": [
            {"name": b.name, "shape": list(b.spec.shape), "dtype": b.spec.dtype.name,
             "device": plan.device_name(graph.storages[b.storage].device),
             "storage": b.storage, "kind": graph.storages[b.storage].kind}
            for b in graph.blobs.values()
            if b.name in named or b.name in graph.outputs.values() or b.kind == "input"
        ],
        "storages": [
            {"id": s.id, "device": plan.device_name(s.device), "bytes": s.nbytes,
             "offset": plan.offsets[s.id]}
            for s in graph.storages
        ],
        "steps": [
            {"node": s.node, "stream": s.stream, "waits": list(s.waits), "records": s.records}
            for s in plan.steps
        ],
        "events": plan.n_events,
        "arena_bytes": {plan.device_name(d): n for d, n in sorted(plan.arena_bytes.items())},
        "outputs": dict(graph.outputs),
    }  # fmt: skip
