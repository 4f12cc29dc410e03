"""Why is there no (more) overlap? Work, span, the critical path, and what to do about what limits.

Work is what all steps take one after the other, span the longest chain of dependencies: no plan and
no machine is faster than the span, and none with L lanes faster than work / L. What a run took
beyond that is divided up along its critical path, each part with a cause:

    elapsed = dependencies + order of streams + slower steps + gaps

Slower steps are those that take longer beside others than alone (Python's lock, memory bandwidth, a
device that one step fills); gaps are where a step came late (host, hand-over, full device).

Source of work and span: Blumofe, Leiserson, "Scheduling multithreaded computations by work
stealing", 1999. The division is ours: `asyncnet_gpu.report.diagnosis`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from asyncnet_gpu.errors import NetError, message
from asyncnet_gpu.plan.deps import find_dependencies
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.report.diagnosis import Cause, causes_of, longest_path
from asyncnet_gpu.report.times import Times
from asyncnet_gpu.timeline import TracedRun
from asyncnet_gpu.trace.path import critical_path

if TYPE_CHECKING:
    from asyncnet_gpu.timeline import Timeline


@dataclass(frozen=True, slots=True)
class PathStep:
    """A step of the critical path: how long it took, and how long it was late (seconds)."""

    name: str
    op: str
    stream: str
    seconds: float
    gap_s: float
    after: str


@dataclass(frozen=True, slots=True)
class StreamUse:
    """A stream: its steps, the seconds in which it worked, and their share of the run, 0 to 1."""

    name: str
    kind: str
    n_steps: int
    busy_s: float
    utilisation: float


@dataclass(frozen=True, slots=True)
class Report:
    """How much of a net overlapped in a run, and what limits it.

    Attributes
    ----------
    net, backend, mode
        What ran.
    measured
        False when the times are those of a model (backend sim).
    n_runs
        Runs looked at; the times are those of the fastest, which others disturbed least.
    n_steps, n_waits
        Of the plan.
    elapsed_s
        Of the traced run, in seconds.
    untraced_s
        Of the fastest run without tracing, on the host's clock; None where that was not measured.
        In a graph mode on a device it is a replay, while a traced run is issued step by step.
    node_seconds
        Time of each node by name, alone where that was measured: for ``compile(measured=...)``.
    work_s
        Sum of the times of all steps, alone where that was measured.
    span_s
        Longest chain of dependencies, in the same times.
    lanes
        Steps that the device can really run at a time, as far as the backend knows.
    streams, path
        Use of each stream; the critical path, first step first.
    causes
        What limits, the greatest loss first; the first is what to look at.
    """

    net: str
    backend: str
    mode: str
    measured: bool
    n_runs: int
    n_steps: int
    n_waits: int
    elapsed_s: float
    work_s: float
    span_s: float
    lanes: int
    streams: tuple[StreamUse, ...]
    path: tuple[PathStep, ...]
    causes: tuple[Cause, ...]
    untraced_s: float | None = None
    node_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Work / span: how many steps could run at a time on average, at most."""
        return self.work_s / self.span_s if self.span_s else 1.0

    @property
    def possible(self) -> float:
        """Largest speed-up over one stream: work / span, or the number of lanes if that is less."""
        return max(1.0, min(self.ratio, float(self.lanes)))

    @property
    def achieved(self) -> float:
        """Work / elapsed, without tracing where that was measured: speed-up over one by one."""
        elapsed_s = self.elapsed_s
        if self.untraced_s is not None:
            elapsed_s = min(elapsed_s, self.untraced_s)
        # Reading the clock makes the shortest steps longer: never more than the net allows.
        return min(self.ratio, self.work_s / elapsed_s) if elapsed_s else 1.0

    @property
    def limit(self) -> Cause:
        """The first limiting cause."""
        return self.causes[0]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data; times in seconds."""
        derived = {"ratio": self.ratio, "possible": self.possible, "achieved": self.achieved}
        return {**asdict(self), **derived}

    def __str__(self) -> str:
        from asyncnet_gpu.report.words import report_text

        return report_text(self)


def report_timeline(
    timeline: Timeline, alone: Mapping[int, float] | None = None, untraced_s: float | None = None
) -> Report:
    """Judge the fastest run of a timeline.

    Parameters
    ----------
    alone
        Node id to seconds that the node takes with nothing beside it; without it steps that became
        slower beside others are only noticed where Python's lock held them up.
    untraced_s
        Seconds of the fastest run without tracing.

    Raises
    ------
    NetError
        If nothing was traced.
    """
    runs = [run for run in timeline.runs if run.slices]
    if not runs:
        raise NetError(
            message("report", "nothing was traced", expected="a run inside exe.trace()",
                    got=f"{len(timeline.runs)} runs without steps", remedy="Run the net in it.")
        )  # fmt: skip
    run = min(runs, key=lambda r: r.elapsed_s)
    plan = timeline.plan
    times = Times(plan, timeline.model, run, alone, untraced_s)
    links = critical_path(plan, run)
    edges = [list(found) for found in find_dependencies(plan.graph)]
    seconds = times.node_seconds()
    span_s = longest_path(edges, seconds)
    return Report(
        plan.graph.name, plan.device_kind, plan.mode, plan.device_kind != "sim", len(runs),
        len(plan.steps), plan.n_waits, run.elapsed_s, times.work_s, span_s, times.lanes,
        _stream_use(plan, run),
        tuple([_path_step(plan, times, link.step, link.gap_s, link.by) for link in links]),
        causes_of(times, links, span_s), untraced_s,
        {node.name: seconds[node.id] for node in plan.graph.nodes},
    )  # fmt: skip


def _path_step(plan: Plan, times: Times, step: int, gap_s: float, by: str) -> PathStep:
    node = plan.node_of(plan.steps[step])
    stream = f"{plan.device_name(node.device)}/{plan.steps[step].stream}"
    return PathStep(node.name, node.op.kind, stream, times.took_s[step], gap_s, by)


def _stream_use(plan: Plan, run: TracedRun) -> tuple[StreamUse, ...]:
    busy = [0.0] * len(plan.streams)
    count = [0] * len(plan.streams)
    for part in run.slices:
        stream = plan.steps[part.step].stream
        busy[stream] += part.end_s - part.start_s
        count[stream] += 1
    total = run.elapsed_s or 1.0
    return tuple(
        StreamUse(
            f"{plan.device_name(s.device)}/{s.id}", s.kind, count[s.id], busy[s.id],
            min(1.0, busy[s.id] / total),
        )
        for s in plan.streams
    )  # fmt: skip
