"""A step in words: operator, shapes, waits with their reasons. Looked up once for a whole trace."""

from __future__ import annotations

from typing import Any, final

from asyncnet_gpu.plan.deps import find_dependencies
from asyncnet_gpu.plan.describe import recorders
from asyncnet_gpu.plan.types import Plan


@final
class StepText:
    """Texts for the steps of one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._edges = find_dependencies(plan.graph)
        self._recorders = recorders(plan)

    def name(self, step: int) -> str:
        """Return the name of the step's node."""
        return self._plan.node_of(self._plan.steps[step]).name

    def reason(self, step: int, other: int) -> str:
        """Say why a step waits for another: kind of dependency and blob."""
        steps = self._plan.steps
        found = self._edges[steps[step].node].get(steps[other].node)
        return "order of the plan" if found is None else " ".join(found).strip()

    def _blob(self, name: str) -> str:
        return f"{name}: {self._plan.graph.blobs[name].spec}"

    def describe(self, step: int) -> dict[str, Any]:
        """Return what a person wants to know of a step, JSON-able."""
        plan = self._plan
        place = plan.steps[step]
        node = plan.node_of(place)
        waits = []
        for event in place.waits:
            other = self._recorders[event]
            waits.append(f"e{event}: {self.reason(step, other)} from {self.name(other)}")
        return {
            "op": node.op.kind,
            "step": step,
            "stream": f"{plan.device_name(node.device)}/{place.stream}",
            "reads": [self._blob(name) for name in node.reads],
            "writes": [self._blob(name) for name in node.writes],
            "waits": waits,
            "records": None if place.records is None else f"e{place.records}",
            "line": node.line,
        }
