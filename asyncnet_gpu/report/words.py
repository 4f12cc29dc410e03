"""A report as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncnet_gpu.report import PathStep, Report

_LONGEST_PATH = 12


def seconds_text(seconds: float) -> str:
    """Return a time with three digits and a unit that suits it."""
    for limit, scale, unit in ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "us")):
        if seconds >= limit:
            return f"{scale * seconds:.3g} {unit}"
    return "0 us"


def report_text(report: Report) -> str:
    """Return a few lines: numbers, streams, critical path, causes with remedies."""
    how = "measured" if report.measured else "modelled"
    lines = [
        (
            f"report of {report.net!r}: {report.backend}, {report.mode}, {how}, "
            f"{report.n_steps} steps, {report.n_waits} waits"
        ),
        (
            f"run {seconds_text(report.elapsed_s)}{_untraced(report)} | "
            f"work {seconds_text(report.work_s)} | span {seconds_text(report.span_s)} | "
            f"work / span {report.ratio:.2f}"
        ),
        (
            f"overlap: {report.achieved:.2f} steps at a time of {report.possible:.2f} possible "
            f"({report.lanes} lanes)"
        ),
        "streams: "
        + ", ".join(
            f"{s.name} {s.utilisation:.0%}" + (f" ({s.kind})" if s.kind != "compute" else "")
            for s in report.streams
        ),
        "critical path: " + _path_text(report),
        "",
    ]
    for number, cause in enumerate(report.causes):
        lost = f" ({cause.lost_s / report.elapsed_s:.0%} of the run)" if cause.lost_s else ""
        head = "first limit" if number == 0 else "then"
        lines.append(f"{head}: {cause.kind}{lost}")
        lines.append(f"  seen: {cause.evidence}")
        lines.append(f"  do:   {cause.remedy}")
    return "\n".join(lines)


def _untraced(report: Report) -> str:
    if report.untraced_s is None:
        return ""
    return f" ({seconds_text(report.untraced_s)} without tracing)"


def _path_text(report: Report) -> str:
    path = report.path
    words = [_step_text(step, report.elapsed_s) for step in path]
    if len(path) > _LONGEST_PATH:
        half = _LONGEST_PATH // 2
        words[half:-half] = [f"... {len(path) - _LONGEST_PATH} more ..."]
    return " -> ".join(words)


def _step_text(step: PathStep, elapsed_s: float) -> str:
    gap = f"[{seconds_text(step.gap_s)} gap] " if step.gap_s > 0.05 * elapsed_s else ""
    return f"{gap}{step.name} ({seconds_text(step.seconds)})"
