"""``asyncnet verify``."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from asyncnet_gpu.cli.common import (
    AllocatorOption,
    BackendOption,
    InputOption,
    JsonOption,
    ModeOption,
    NetArgument,
    ShapeOption,
    StreamsOption,
    print_json,
)
from asyncnet_gpu.cli.planning import plan_net
from asyncnet_gpu.cli.stored_plan import is_plan, not_a_plan, plan_from_dict
from asyncnet_gpu.errors import VerificationError
from asyncnet_gpu.plan.deps import find_dependencies
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.verify import verify as prove


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(verify)


def verify(
    net: NetArgument,
    backend: BackendOption = "cpu",
    mode: ModeOption = "streams",
    allocator: AllocatorOption = "cost",
    max_streams: StreamsOption = None,
    shape: ShapeOption = None,
    inputs: InputOption = None,
    json: JsonOption = False,
) -> None:
    """Prove a plan: every dependency and every reuse of bytes is ordered by streams and events.

    NET may also be a plan written by `asyncnet plan --json`. Status 3 and a counter-example when
    the proof fails. Nothing runs and no device is needed.

    [bold]Examples:[/bold]

    asyncnet verify net.py:make --allocator exact

    asyncnet verify plan.json
    """
    stored = _read(net)
    if stored is not None:
        made = plan_from_dict(stored)
    else:
        made = plan_net(
            net, shape, inputs, backend=backend, mode=mode, allocator=allocator,
            max_streams=max_streams,
        )  # fmt: skip
    problem = _counter_example(made)
    facts = _facts(made)
    if json:
        print_json({"proven": problem is None, "counter_example": problem, **facts})
    else:
        _print(made.graph.name, facts, problem)
    if problem is not None:
        raise typer.Exit(3)


def _read(target: str) -> Mapping[str, Any] | None:
    """Return the contents of a file that holds a plan; None when it is something else."""
    if Path(target).suffix != ".json" or not Path(target).is_file():
        return None
    try:
        contents = json_module.loads(Path(target).read_text(encoding="utf-8"))
    except ValueError as error:
        raise not_a_plan(str(error), "JSON") from error
    return contents if is_plan(contents) else None


def _counter_example(made: Plan) -> str | None:
    try:
        prove(made)
    except VerificationError as error:
        return str(error)
    return None


def _facts(made: Plan) -> dict[str, Any]:
    edges = sum(len(found) for found in find_dependencies(made.graph))
    placed = sum(offset is not None for offset in made.offsets)
    return {
        "net": made.graph.name, "mode": made.mode, "allocator": made.allocator,
        "steps": len(made.steps), "streams": len(made.streams), "events": made.n_events,
        "waits": made.n_waits, "dependencies": edges, "storages_in_arenas": placed,
        "arena_bytes": {made.device_name(d): n for d, n in sorted(made.arena_bytes.items())},
    }  # fmt: skip


def _print(name: str, facts: Mapping[str, Any], problem: str | None) -> None:
    console = Console()
    table = Table(title=escape(name), title_justify="left", show_header=False)
    for key, value in facts.items():
        if key == "arena_bytes":
            value = ", ".join(f"{device} {size:,}" for device, size in value.items()) or "none"
        if key != "net":
            table.add_row(key.replace("_", " "), escape(str(value)))
    console.print(table)
    if problem is None:
        console.print("[green]proven:[/green] every dependency and every reuse of bytes is ordered")
    else:
        console.print(f"[red]refused:[/red] {escape(problem)}", highlight=False, soft_wrap=True)
