"""``asyncnet demo``."""

from __future__ import annotations

from typing import Annotated

import typer


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(demo)


def demo(
    backend: Annotated[str, typer.Option(help="cpu, cuda or auto")] = "cpu",
    out: Annotated[str, typer.Option(help="folder for the pictures")] = "build/demo",
    rounds: Annotated[int, typer.Option(min=2, help="timed runs of each mode")] = 9,
) -> None:
    """Run the main job on real input and draw a timeline."""
    from asyncnet_gpu.demo import run_demo

    run_demo(backend=backend, folder=out, rounds=rounds)
