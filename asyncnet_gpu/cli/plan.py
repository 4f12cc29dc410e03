"""``asyncnet plan``."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

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
from asyncnet_gpu.plan.describe import recorders
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.trace.describe import StepText


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(plan)


def plan(
    net: NetArgument,
    backend: BackendOption = "cpu",
    mode: ModeOption = "streams",
    allocator: AllocatorOption = "cost",
    max_streams: StreamsOption = None,
    shape: ShapeOption = None,
    inputs: InputOption = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="plain text: a column for each stream")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Lay a net out: which step on which stream, who waits for whom and why, bytes of the arenas.

    Nothing runs, no device is needed: --backend says whose prices and alignment count.

    [bold]Examples:[/bold]

    asyncnet plan net.py:make

    asyncnet plan model.onnx --shape x=1,3,224,224 --backend cuda --json > plan.json
    """
    made = plan_net(
        net, shape, inputs, backend=backend, mode=mode, allocator=allocator, max_streams=max_streams
    )
    if json:
        print_json(made.to_dict())
    elif describe:
        print(made.describe())
    else:
        _print(made)


def _print(made: Plan) -> None:
    console = Console()
    console.print(_streams(made))
    console.print(_steps(made))
    for device, size in sorted(made.arena_bytes.items()):
        total = sum(
            s.nbytes for s in made.graph.storages
            if s.device == device and made.offsets[s.id] is not None
        )  # fmt: skip
        share = f", {size / total:.0%} of the sum of its blobs" if total else ""
        console.print(f"arena on {made.device_name(device)}: {size:,} bytes{share}")


def _streams(made: Plan) -> Table:
    n_waits, n_events = made.n_waits, made.n_events
    table = Table(
        title=f"{escape(made.graph.name)}: {made.mode}, allocator {made.allocator}, "
        f"{n_events} events, {n_waits} waits",
        title_justify="left",
    )
    for head in ("stream", "kind"):
        table.add_column(head)
    for head in ("priority", "steps"):
        table.add_column(head, justify="right")
    count = Counter(step.stream for step in made.steps)
    for stream in made.streams:
        name = f"{made.device_name(stream.device)}/{stream.id}"
        table.add_row(name, stream.kind, str(stream.priority), str(count[stream.id]))
    return table


def _steps(made: Plan) -> Table:
    text, source = StepText(made), recorders(made)
    table = Table(title="steps, in the order in which they are issued", title_justify="left")
    table.add_column("step", justify="right")
    for head in ("stream", "node", "operator", "writes", "waits for"):
        table.add_column(head, overflow="fold")
    for index, step in enumerate(made.steps):
        node = made.node_of(step)
        waits = [
            f"{text.name(source[event])} ({text.reason(index, source[event])})"
            for event in step.waits
        ]
        writes = ", ".join(str(spec) for spec in made.graph.write_specs(node))
        row: list[Any] = [index, f"{made.device_name(node.device)}/{step.stream}", node.name,
                          node.op.kind, writes, "\n".join(waits)]  # fmt: skip
        table.add_row(*[escape(str(cell)) for cell in row])
    return table
