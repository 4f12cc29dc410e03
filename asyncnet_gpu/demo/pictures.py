"""Pictures for people: the result of the image net, and one lane per stream of what ran when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from asyncnet_gpu.backends.base import Slice
from asyncnet_gpu.errors import AsyncNetError, message
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.timeline import Timeline, TracedRun
from asyncnet_gpu.trace.path import critical_path, predecessors

#: Tints of the Okabe-Ito palette, as on the timeline page.
_TINTS = ("#8fcdf2", "#7fd0b4", "#f4c56b", "#e3b0cc", "#f3e57c", "#9db8e6", "#d3d7dc")
_CRITICAL = "#b3001b"
_LETTERS = 175  # fit beside one another


def write_image(image: np.ndarray[Any, Any], path: Path) -> None:
    """Write (3, height, width) float32 in [0, 1] as PNG."""
    from PIL import Image

    pixels = (image.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Draw the fastest traced run: a lane for a stream, a bar for a step, an arrow for a wait."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise AsyncNetError(
            message("demo", "a package is missing", expected="matplotlib", got=str(error),
                    remedy="pip install 'asyncnet-gpu[demo]'")
        ) from error  # fmt: skip
    mpl.use("Agg")
    from matplotlib import pyplot

    plan = timeline.plan
    run = min(timeline.runs, key=lambda r: r.elapsed_s)
    figure, axes = pyplot.subplots(figsize=(12, 1.6 + 0.7 * len(plan.streams)))
    critical = {link.step for link in critical_path(plan, run)}
    kinds = sorted({plan.node_of(step).op.kind for step in plan.steps})
    tint = {kind: _TINTS[min(i, len(_TINTS) - 1)] for i, kind in enumerate(kinds)}
    for part in run.slices:
        _draw_step(axes, plan, part, part.step in critical, tint)
        step = plan.steps[part.step]
        room = int(_LETTERS * (part.end_s - part.start_s) / run.elapsed_s) - 1
        name = plan.node_of(step).name
        shown = name if len(name) <= room else f"{name[: room - 1]}…"
        if room > 2:
            middle_ms = 1e3 * (part.start_s + part.end_s) / 2
            axes.text(middle_ms, step.stream, shown, ha="center", va="center", fontsize=7, zorder=5)
    _draw_waits(axes, plan, run)
    axes.set_yticks(range(len(plan.streams)))
    axes.set_yticklabels([f"{plan.device_name(s.device)}/{s.id}" for s in plan.streams])
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    achieved = timeline.report().achieved
    axes.set_title(
        f"{plan.graph.name}: {plan.mode}, {1e3 * run.elapsed_s:.2f} ms, "
        f"{achieved:.2f} steps at a time; framed: critical path, arrows: waits",
        fontsize=10,
    )
    marks = [pyplot.Rectangle((0, 0), 1, 1, color=tint[kind]) for kind in kinds]
    axes.legend(
        marks, kinds, ncols=max(1, len(kinds)), fontsize=7, frameon=False, loc="upper center",
        bbox_to_anchor=(0.5, -0.28 if len(plan.streams) < 3 else -0.18),
    )  # fmt: skip
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_step(axes: Any, plan: Plan, part: Slice, critical: bool, tint: dict[str, str]) -> None:
    step = plan.steps[part.step]
    axes.barh(
        step.stream, 1e3 * (part.end_s - part.start_s), left=1e3 * part.start_s, height=0.72,
        color=tint[plan.node_of(step).op.kind], edgecolor=_CRITICAL if critical else "white",
        linewidth=1.6 if critical else 0.6, zorder=3 if critical else 2,
    )  # fmt: skip


def _draw_waits(axes: Any, plan: Plan, run: TracedRun) -> None:
    slices = {part.step: part for part in run.slices}
    for step, before in enumerate(predecessors(plan)):
        for other, by in before:
            if by == "wait" and step in slices and other in slices:
                axes.annotate(
                    "", xy=(1e3 * slices[step].start_s, plan.steps[step].stream),
                    xytext=(1e3 * slices[other].end_s, plan.steps[other].stream),
                    arrowprops={"arrowstyle": "->", "color": "#333333", "linewidth": 0.9},
                    zorder=4,
                )  # fmt: skip
