"""What really ran when: the steps of traced runs, as Chrome trace JSON or as a picture."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, final

from asyncnet_gpu.backends.base import Execution, Slice
from asyncnet_gpu.plan.types import Plan


@dataclass(frozen=True, slots=True)
class TracedRun:
    """One run: its slot, when it began on the host's clock, and its steps."""

    slot: int
    started_s: float
    slices: tuple[Slice, ...]

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start of the run to the end of its last step."""
        return max((s.end_s for s in self.slices), default=0.0)


@final
class Timeline:
    """Collects traced runs of one plan.

    Attributes
    ----------
    plan
        The plan that ran.
    runs
        In the order in which they ended.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.runs: list[TracedRun] = []

    def add(self, slot: int, execution: Execution) -> None:
        """Keep the slices of a run that has ended."""
        self.runs.append(TracedRun(slot, execution.started_s, tuple(execution.slices or ())))

    def to_chrome(self) -> dict[str, Any]:
        """Return the runs as Chrome trace events: one process a slot, one thread a stream."""
        events: list[dict[str, Any]] = []
        zero_s = min((run.started_s for run in self.runs), default=0.0)
        for slot in sorted({run.slot for run in self.runs}):
            events.append(_named("process_name", slot, 0, f"slot {slot}"))
            for stream in self.plan.streams:
                name = f"{self.plan.device_name(stream.device)}/{stream.id} {stream.kind}"
                events.append(_named("thread_name", slot, stream.id, name))
        for run in self.runs:
            for part in run.slices:
                events.append(self._event(run, part, run.started_s - zero_s))
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def _event(self, run: TracedRun, part: Slice, shift_s: float) -> dict[str, Any]:
        step = self.plan.steps[part.step]
        node = self.plan.node_of(step)
        return {
            "name": node.name,
            "cat": node.op.kind,
            "ph": "X",
            "pid": run.slot,
            "tid": step.stream,
            "ts": 1e6 * (part.start_s + shift_s),
            "dur": 1e6 * (part.end_s - part.start_s),
            "args": {"reads": list(node.reads), "writes": list(node.writes), "line": node.line},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write Chrome trace JSON (opens in Perfetto and chrome://tracing)."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.to_chrome(), file)


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
