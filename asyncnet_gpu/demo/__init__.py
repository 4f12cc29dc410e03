"""The main job on real input: a photograph and handwritten digits, serial against streams."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from asyncnet_gpu.api import compile as compile_net
from asyncnet_gpu.api import to_numpy
from asyncnet_gpu.demo.inputs import digits, photograph
from asyncnet_gpu.demo.nets import ensemble_net, image_net
from asyncnet_gpu.demo.pictures import draw_timeline, write_image
from asyncnet_gpu.errors import InternalError
from asyncnet_gpu.net import AsyncNet

__all__ = ["run_demo"]

_MODES = ("serial", "streams")
_TRACED = 3


def _compare(
    net: AsyncNet, inputs: dict[str, Any], backend: str, rounds: int, picture: Path, table: Table
) -> dict[str, Any]:
    """Run both modes in turn, insist on equal bits, add a row per mode, draw the timeline."""
    exes = {mode: compile_net(net, backend=backend, mode=mode) for mode in _MODES}
    try:
        outputs = {mode: exe.run(inputs) for mode, exe in exes.items()}
        for key, value in outputs["serial"].items():
            if not np.array_equal(to_numpy(value), to_numpy(outputs["streams"][key])):
                raise InternalError(f"[demo] output {key!r} differs between the modes")
        seconds: dict[str, list[float]] = {mode: [] for mode in _MODES}
        for _ in range(rounds):
            for mode, exe in exes.items():
                start = time.perf_counter()
                exe.run(inputs)
                seconds[mode].append(time.perf_counter() - start)
        serial_s = statistics.median(seconds["serial"])
        for mode, exe in exes.items():
            median_s, plan = statistics.median(seconds[mode]), exe.plan
            arena = sum(plan.arena_bytes.values()) / 1e6
            table.add_row(
                net.name, mode, f"{1e3 * median_s:.2f} ms", f"{serial_s / median_s:.2f}",
                str(len(plan.streams)), str(plan.n_waits), f"{arena:.1f} MB",
            )  # fmt: skip
        with exes["streams"].trace() as timeline:
            for _ in range(_TRACED):
                exes["streams"].run(inputs)
        draw_timeline(timeline, picture)
        timeline.save(picture.with_suffix(".html"))
        return outputs["streams"]
    finally:
        for exe in exes.values():
            exe.close()


def run_demo(*, backend: str = "cpu", folder: str = "build/demo", rounds: int = 9) -> None:
    """Run both nets in both modes, print a table, write the pictures into `folder`."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    table = Table(title=f"serial and streams give the same bits ({backend})")
    for head in ("net", "mode", "time per run", "speed-up", "streams", "waits", "arena"):
        table.add_column(head, justify="left" if head in ("net", "mode") else "right")

    image = photograph()
    net = image_net(image.shape)
    made = _compare(net, {"image": image}, backend, rounds, out / "image_timeline.png", table)
    write_image(to_numpy(made["picture"])[0], out / "picture.png")

    rows, labels, ridge, bayes = digits()
    net = ensemble_net(rows.shape[0], ridge, bayes)
    made = _compare(net, {"x": rows}, backend, rounds, out / "ensemble_timeline.png", table)
    correct = float((to_numpy(made["probability"]).argmax(axis=1) == labels).mean())

    console = Console()
    console.print(table)
    console.print(f"{labels.size:,} digits that the models had not seen: {correct:.1%} right")
    console.print(f"pictures and timelines: {out}/")
