"""How far a run has come, for the error after a time-out: asks events, never waits."""

from __future__ import annotations

from collections.abc import Sequence

from cupy.cuda import runtime

from asyncnet_gpu.backends.cuda.context import Stream
from asyncnet_gpu.backends.cuda.faults import SUCCESS
from asyncnet_gpu.backends.cuda.issue import IssueList
from asyncnet_gpu.plan.types import Plan


def last_steps(plan: Plan) -> tuple[int, ...]:
    """Return the last step of every stream: all that is known of a graph that does not end."""
    return tuple(sorted({step.stream: i for i, step in enumerate(plan.steps)}.values()))


def stuck_steps(
    issue: IssueList, streams: Sequence[Stream], events: Sequence[int], *, all_issued: bool
) -> tuple[int, ...]:
    """Return the step in which the host is, and for each busy stream its first unfinished step.

    Only events of steps that have been issued are asked: those of later ones are the last run's.
    """
    plan = issue.plan
    issued = len(plan.steps) if all_issued else issue.host_step()
    stuck = set() if all_issued or not issue.host_runs() else {issued}

    def done(event: int) -> bool:
        return bool(runtime.eventQuery(events[event]) == SUCCESS)

    for number, stream in enumerate(streams):
        steps = [i for i in range(issued) if plan.steps[i].stream == number]
        if not steps or runtime.streamQuery(stream.ptr) == SUCCESS:
            continue
        recorded = [(k, plan.steps[i].records) for k, i in enumerate(steps)]
        known = [k for k, event in recorded if event is not None and done(event)]
        following = known[-1] + 1 if known else 0
        if following < len(steps) and all(done(e) for e in plan.steps[steps[following]].waits):
            stuck.add(steps[following])
    return tuple(sorted(stuck))
