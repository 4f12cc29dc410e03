"""A page that shows traced runs: one file with its style, its script and its data inside.

Nothing is fetched: the page works from a mail attachment. What the script draws is in `page_data`;
layout and drawing are in ``page.js``.
"""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any

from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.timeline import Timeline, TracedRun
from asyncnet_gpu.trace.describe import StepText
from asyncnet_gpu.trace.memory import live_bytes
from asyncnet_gpu.trace.path import critical_path, predecessors


def timeline_page(timeline: Timeline) -> str:
    """Return the page as text."""
    folder = files("asyncnet_gpu.trace.page")
    data = json.dumps(page_data(timeline), separators=(",", ":"))
    parts = {
        "TITLE": escape(f"{timeline.plan.graph.name}: {timeline.plan.mode}"),
        "STYLE": folder.joinpath("page.css").read_text(encoding="utf-8"),
        # "</script>" in a name must not end the element.
        "DATA": data.replace("<", "\\u003c"),
        "LAYOUT": folder.joinpath("layout.js").read_text(encoding="utf-8"),
        "SCRIPT": folder.joinpath("page.js").read_text(encoding="utf-8"),
    }
    text = folder.joinpath("page.html").read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


def page_data(timeline: Timeline) -> dict[str, Any]:
    """Return what the page draws, JSON-able; times in microseconds since the first run began."""
    plan = timeline.plan
    zero_s = min((run.started_s for run in timeline.runs), default=0.0)
    return {
        "net": plan.graph.name,
        "backend": plan.device_kind,
        "mode": plan.mode,
        "streams": [
            {"name": f"{plan.device_name(s.device)}/{s.id}", "kind": s.kind} for s in plan.streams
        ],
        "steps": _steps(plan),
        "arena": {plan.device_name(d): size for d, size in sorted(plan.arena_bytes.items())},
        "runs": [_run(plan, run, run.started_s - zero_s) for run in timeline.runs],
        "report": _report(timeline),
    }


def _steps(plan: Plan) -> list[dict[str, Any]]:
    text, before = StepText(plan), predecessors(plan)
    made = []
    for index, step in enumerate(plan.steps):
        waits = [
            {"from": other, "why": text.reason(index, other)}
            for other, by in before[index]
            if by == "wait"
        ]
        described = text.describe(index)
        made.append(
            {
                "name": text.name(index),
                "op": described["op"],
                "stream": step.stream,
                "reads": described["reads"],
                "writes": described["writes"],
                "waits": waits,
                "line": described["line"],
            }
        )
    return made


def _us(seconds: float) -> float:
    return round(1e6 * seconds, 3)


def _run(plan: Plan, run: TracedRun, shift_s: float) -> dict[str, Any]:
    path = critical_path(plan, run)
    return {
        "slot": run.slot,
        "start": _us(shift_s),
        "elapsed": _us(run.elapsed_s),
        "slices": [
            [part.step, _us(shift_s + part.start_s), _us(shift_s + part.end_s)]
            for part in sorted(run.slices, key=lambda s: (s.start_s, s.step))
        ],
        "host": [
            [part.thread, part.what, part.step, _us(shift_s + part.start_s),
             _us(shift_s + part.end_s)]
            for part in run.host
        ],
        "path": [link.step for link in path],
        "gaps": {str(link.step): _us(link.gap_s) for link in path},
        "memory": {
            plan.device_name(device): [[_us(shift_s + at_s), live] for at_s, live in points]
            for device, points in live_bytes(plan, run).items()
        },
    }  # fmt: skip


def _report(timeline: Timeline) -> dict[str, Any] | None:
    if not any(run.slices for run in timeline.runs):
        return None
    report = timeline.report()
    return {
        "elapsed": _us(report.elapsed_s),
        "work": _us(report.work_s),
        "span": _us(report.span_s),
        "ratio": report.ratio,
        "possible": report.possible,
        "achieved": report.achieved,
        "measured": report.measured,
        "causes": [
            {"kind": c.kind, "lost": _us(c.lost_s), "evidence": c.evidence, "remedy": c.remedy}
            for c in report.causes
        ],
    }
