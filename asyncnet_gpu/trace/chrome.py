"""Chrome trace events of traced runs, as Perfetto and chrome://tracing read them.

A process is a slot, its threads are the streams, and one more process holds the threads of the
host. Complete events ("X", category "step") are the steps and nothing else; a flow ("s" to "f")
is a wait, from the end of the step that recorded the event to the start of the one that waited;
counters ("C") are the live bytes of an arena. Runs, critical paths and what the host did are "B"
and "E" on tracks of their own.

Format: "Trace Event Format" (Google). Perfetto hides process 0 and thread 0, and binds a flow to
the slice that is open at its time stamp: hence the numbers from 1, and a flow one nanosecond before
the end of the slice that it leaves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, final

from asyncnet_gpu.backends.base import Slice
from asyncnet_gpu.timeline import Timeline, TracedRun
from asyncnet_gpu.trace.describe import StepText
from asyncnet_gpu.trace.memory import live_bytes
from asyncnet_gpu.trace.path import critical_path, predecessors

Event = dict[str, Any]

#: Colour of chrome://tracing for steps on the critical path; Perfetto has them as a track.
_CRITICAL = "terrible"


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """Return the JSON object; times are microseconds since the first run began."""
    plan = timeline.plan
    return {
        "traceEvents": _Writer(timeline).events(),
        "displayTimeUnit": "ms",
        "otherData": {
            "net": plan.graph.name,
            "backend": plan.device_kind,
            "mode": plan.mode,
            "allocator": plan.allocator,
            "steps": len(plan.steps),
            "waits": plan.n_waits,
            "runs": len(timeline.runs),
        },
    }


def chrome_json(timeline: Timeline) -> str:
    """Return the trace as text, one event a line."""
    trace = chrome_trace(timeline)
    lines = ",\n".join(json.dumps(event) for event in trace.pop("traceEvents"))
    rest = json.dumps(trace)[1:]
    return f'{{"traceEvents": [\n{lines}\n], {rest}\n'


@final
class _Writer:
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._plan = timeline.plan
        self._zero_s = min((run.started_s for run in timeline.runs), default=0.0)
        self._text = StepText(timeline.plan)
        self._before = predecessors(timeline.plan)
        self._tracks: dict[tuple[int, str], int] = {}
        self._until_ns: dict[int, int] = {}
        self._n_flows = 0
        self._names: list[Event] = []
        self._made: list[Event] = []

    def events(self) -> list[Event]:
        """Return all events: names first, then by time."""
        slots = sorted({run.slot for run in self._timeline.runs})
        for slot in slots:
            self._open_slot(slot)
        for number, run in enumerate(self._timeline.runs):
            self._add_run(number, run)
        for number, run in enumerate(self._timeline.runs):
            self._add_host(number, run, pid=max(slots) + 2)
        return self._names + sorted(self._made, key=lambda event: float(event["ts"]))

    # -- tracks ------------------------------------------------------------------------------

    def _open_slot(self, slot: int) -> None:
        plan, pid = self._plan, slot + 1
        self._name("process_name", pid, 0, f"slot {slot}: {plan.graph.name}, {plan.mode}")
        self._track(pid, "runs")
        self._track(pid, "critical path")
        for stream in plan.streams:
            self._track(pid, f"{plan.device_name(stream.device)}/{stream.id} {stream.kind}")

    def _track(self, pid: int, name: str) -> int:
        """Return the thread number of a track, made and named when it is new."""
        if (pid, name) not in self._tracks:
            tid = self._tracks[pid, name] = len(self._tracks) + 1
            self._name("thread_name", pid, tid, name)
            order = {"pid": pid, "tid": tid, "args": {"sort_index": tid}}
            self._names.append({"name": "thread_sort_index", "ph": "M", **order})
        return self._tracks[pid, name]

    def _name(self, what: str, pid: int, tid: int, name: str) -> None:
        self._names.append(
            {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
        )

    def _stream_track(self, pid: int, stream: int) -> int:
        info = self._plan.streams[stream]
        return self._track(pid, f"{self._plan.device_name(info.device)}/{stream} {info.kind}")

    # -- events ------------------------------------------------------------------------------

    def _ns(self, run: TracedRun, at_s: float) -> int:
        return round(1e9 * (run.started_s - self._zero_s + at_s))

    def _add(self, ph: str, at_ns: int, pid: int, tid: int, **more: Any) -> None:
        self._made.append({"ph": ph, "ts": at_ns / 1e3, "pid": pid, "tid": tid, **more})

    def _span(self, run: TracedRun, tid: int, start_s: float, end_s: float) -> tuple[int, int]:
        """Return whole nanoseconds that begin after what the track holds; never an empty span.

        Clocks of devices tick coarsely: two steps of a stream may share a tick.
        """
        start = max(self._ns(run, start_s), self._until_ns.get(tid, 0))
        end = self._until_ns[tid] = max(self._ns(run, end_s), start + 2)
        return start, end

    def _block(
        self, run: TracedRun, pid: int, tid: int, part: tuple[float, float], name: str,
        category: str, args: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        start, end = self._span(run, tid, *part)
        self._add("B", start, pid, tid, name=name, cat=category, args=dict(args))
        self._add("E", end, pid, tid)

    def _add_run(self, number: int, run: TracedRun) -> None:
        pid = run.slot + 1
        tid = self._track(pid, "runs")
        self._block(run, pid, tid, (0.0, run.elapsed_s), f"run {number}", "run", {"slot": run.slot})
        path = {link.step for link in critical_path(self._plan, run)}
        self._add_path(run, pid, path)
        spans: dict[int, tuple[int, int]] = {}
        for part in sorted(run.slices, key=lambda s: (s.start_s, s.step)):
            spans[part.step] = self._add_step(number, run, part, part.step in path)
        self._add_flows(pid, spans)
        for device, points in live_bytes(self._plan, run).items():
            name = f"live {self._plan.device_name(device)}"  # Perfetto appends the unit
            for at_s, live in [(0.0, 0), *points]:
                self._add("C", self._ns(run, at_s), pid, 0, name=name, args={"bytes": live})

    def _add_step(
        self, number: int, run: TracedRun, part: Slice, critical: bool
    ) -> tuple[int, int]:
        pid, tid = (
            run.slot + 1,
            self._stream_track(run.slot + 1, self._plan.steps[part.step].stream),
        )
        start, end = self._span(run, tid, part.start_s, part.end_s)
        args = {**self._text.describe(part.step), "run": number, "critical": critical}
        colour = {"cname": _CRITICAL} if critical else {}
        self._add("X", start, pid, tid, dur=(end - start) / 1e3, name=self._text.name(part.step),
                  cat="step", args=args, **colour)  # fmt: skip
        return start, end

    def _add_path(self, run: TracedRun, pid: int, steps: set[int]) -> None:
        tid = self._track(pid, "critical path")
        for part in sorted(run.slices, key=lambda s: (s.start_s, s.step)):
            if part.step in steps:
                name = self._text.name(part.step)
                self._block(run, pid, tid, (part.start_s, part.end_s), name, "critical path")

    def _add_flows(self, pid: int, spans: dict[int, tuple[int, int]]) -> None:
        steps = self._plan.steps
        for step, (start, _) in sorted(spans.items()):
            for other, by in self._before[step]:
                if by != "wait" or other not in spans:
                    continue
                self._n_flows += 1
                flow = {
                    "cat": "wait",
                    "name": self._text.reason(step, other),
                    "id": self._n_flows,
                }
                leave = self._stream_track(pid, steps[other].stream)
                arrive = self._stream_track(pid, steps[step].stream)
                # Clocks of two devices may disagree: an arrow that arrives before it left is lost.
                leave_ns = max(spans[other][0], min(spans[other][1] - 1, start))
                self._add("s", leave_ns, pid, leave, **flow)
                self._add("f", start, pid, arrive, bp="e", **flow)

    def _add_host(self, number: int, run: TracedRun, pid: int) -> None:
        if run.host:
            self._name("process_name", pid, 0, "host")
        for part in sorted(run.host, key=lambda s: (s.start_s, s.step)):
            tid = self._track(pid, part.thread)
            cpu = {} if part.cpu_s is None else {"cpu_ms": round(1e3 * part.cpu_s, 6)}
            name = f"{part.what} {self._text.name(part.step)}"
            args = {"run": number, "step": part.step, **cpu}
            span, category = (part.start_s, part.end_s), f"host {part.what}"
            self._block(run, pid, tid, span, name, category, args)
