"""The critical path of a run: from the last step back, each time to whoever was waited for last.

What lies between the end of one step of the path and the start of the next is a gap, and is told
apart by what filled it: the host had not issued the step yet, the event took its time from one
stream to the other, or the step was ready and the device had no room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asyncnet_gpu.backends.base import Slice
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.timeline import TracedRun

#: The interpreter needs no longer between two steps of a thread; then it was not on a core.
_INTERPRETER_S = 50e-6


@dataclass(frozen=True, slots=True)
class Link:
    """A step on the critical path, and why it did not start earlier.

    Attributes
    ----------
    step
        Index in the plan.
    before
        The step that it came after, or None for the first of the path.
    by
        "stream" (the order of its stream), "wait" (an event) or "start" (nothing before it).
    host_s
        Part of the gap in which the host had not come to the step.
    handoff_s
        Part of the gap between the end of a step on another stream and this one's start.
    queued_s
        The rest: the step was ready and the device did something else.
    """

    step: int
    before: int | None
    by: str
    host_s: float = 0.0
    handoff_s: float = 0.0
    queued_s: float = 0.0

    @property
    def gap_s(self) -> float:
        """Seconds between the end of the step before and the start of this one."""
        return self.host_s + self.handoff_s + self.queued_s


def predecessors(plan: Plan) -> list[list[tuple[int, str]]]:
    """Return for each step what it comes after: the step before on its stream, and its waits."""
    recorder: dict[int, int] = {}
    last: dict[int, int] = {}
    found: list[list[tuple[int, str]]] = []
    for index, step in enumerate(plan.steps):
        before = [(last[step.stream], "stream")] if step.stream in last else []
        found.append(before + [(recorder[event], "wait") for event in step.waits])
        last[step.stream] = index
        if step.records is not None:
            recorder[step.records] = index
    return found


def critical_path(plan: Plan, run: TracedRun) -> tuple[Link, ...]:
    """Return the critical path of a run, first step first.

    Notes
    -----
    On a device the host issues ahead ("issue" slices tell when); on the CPU the thread of a stream
    issues its own steps, so that a gap on one stream is the host's (or, when long, somebody else's
    who had the core), and a gap after an event is that of waking a thread. O(steps + waits).
    """
    slices = {s.step: s for s in run.slices}
    if not slices:
        return ()
    issued = {s.step: s.end_s for s in run.host if s.what == "issue"}
    before = predecessors(plan)
    step: int | None = max(slices, key=lambda i: (slices[i].end_s, i))
    path: list[Link] = []
    while step is not None:
        candidates = [(slices[i].end_s, by, i) for i, by in before[step] if i in slices]
        end_s, by, other = max(candidates, default=(0.0, "start", None))
        path.append(_link(slices, issued, step, other, by, end_s))
        step = other
    return tuple(reversed(path))


def _link(
    slices: Mapping[int, Slice], issued: Mapping[int, float], step: int, before: int | None,
    by: str, end_s: float,
) -> Link:  # fmt: skip
    gap_s = max(0.0, slices[step].start_s - end_s)
    if issued:
        host_s = min(gap_s, max(0.0, issued.get(step, 0.0) - end_s))
        rest_s = gap_s - host_s
        handoff_s = rest_s if by == "wait" else 0.0
        return Link(step, before, by, host_s, handoff_s, rest_s - handoff_s)
    if by == "stream":
        host_s = min(gap_s, _INTERPRETER_S)
        return Link(step, before, by, host_s=host_s, queued_s=gap_s - host_s)
    return Link(step, before, by, handoff_s=gap_s)
