"""Pictures for people: the result of the image net, and one lane per stream of what ran when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from asyncnet_gpu.errors import AsyncNetError, message
from asyncnet_gpu.timeline import Timeline


def write_image(image: np.ndarray[Any, Any], path: Path) -> None:
    """Write (3, height, width) float32 in [0, 1] as PNG."""
    from PIL import Image

    pixels = (image.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Draw the first traced run: one lane per stream, one bar per step, times in milliseconds."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise AsyncNetError(
            message("demo", "a package is missing", expected="matplotlib", got=str(error),
                    remedy="pip install 'asyncnet-gpu[demo]'")
        ) from error  # fmt: skip
    mpl.use("Agg")
    from matplotlib import pyplot

    plan, run = timeline.plan, timeline.runs[0]
    figure, axes = pyplot.subplots(figsize=(12, 1.2 + 0.7 * len(plan.streams)))
    colours = pyplot.get_cmap("tab20")
    for part in run.slices:
        step = plan.steps[part.step]
        start_ms, length_ms = 1e3 * part.start_s, 1e3 * (part.end_s - part.start_s)
        axes.barh(
            step.stream, length_ms, left=start_ms, height=0.8, color=colours(step.node % 20),
            edgecolor="white",
        )  # fmt: skip
        if length_ms > 0.05 * 1e3 * run.elapsed_s:
            name = plan.node_of(step).name
            axes.text(start_ms + length_ms / 2, step.stream, name, ha="center", va="center",
                      fontsize=7)  # fmt: skip
    axes.set_yticks(range(len(plan.streams)))
    axes.set_yticklabels([f"{plan.device_name(s.device)}/{s.id}" for s in plan.streams])
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.set_title(f"{plan.graph.name}: {plan.mode}, {1e3 * run.elapsed_s:.2f} ms")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
