"""``asyncnet explain``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from asyncnet_gpu.cli.common import (
    AllocatorOption,
    BackendOption,
    InputOption,
    JsonOption,
    ModeOption,
    NetArgument,
    SeedOption,
    ShapeOption,
    StreamsOption,
    print_json,
)
from asyncnet_gpu.cli.planning import load_bound, plan_net, settled
from asyncnet_gpu.report import Report
from asyncnet_gpu.report.words import seconds_text

_LONGEST_PATH = 16


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(explain)


def explain(
    net: NetArgument,
    first: Annotated[str | None, typer.Argument(metavar="A", help="a node or a blob")] = None,
    second: Annotated[str | None, typer.Argument(metavar="B", help="another one")] = None,
    backend: BackendOption = "auto",
    mode: ModeOption = "streams",
    allocator: AllocatorOption = "cost",
    max_streams: StreamsOption = None,
    shape: ShapeOption = None,
    inputs: InputOption = None,
    rounds: Annotated[int, typer.Option(min=1, help="runs to look at")] = 10,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Say why there is no (more) overlap, or why B waits for A.

    With a net alone it is run and measured (backend sim: simulated): work, span, overlap reached,
    critical path, use of the streams, and what limits, each with what to do.

    [bold]Examples:[/bold]

    asyncnet explain net.py:make

    asyncnet explain model.onnx --backend sim --json

    asyncnet explain net.py:make h1 y
    """
    if first is not None:
        if second is None:
            raise typer.BadParameter("two names, or none: asyncnet explain NET A B")
        made = plan_net(
            net, shape, inputs, backend=backend, mode=mode, allocator=allocator,
            max_streams=max_streams,
        )  # fmt: skip
        why = made.explain(first, second)
        print_json({"first": first, "second": second, "why": why}) if json else print(why)
        return
    bound, arrays = load_bound(net, shape, inputs, seed)
    with (
        Console(stderr=True).status("compiling and running") as status,
        bound.compile(
            backend=backend, mode=mode, allocator=allocator, max_streams=max_streams
        ) as exe,
    ):
        status.update(f"{rounds} runs, and as many of each step alone")
        report = settled(exe, arrays).report(arrays, rounds=rounds)
        why = exe.why
    if json:
        print_json({**report.to_dict(), "why_this_mode": why})
    else:
        print_report(report, Console())


def print_report(report: Report, console: Console) -> None:
    """Write a report as tables, the first cause on top."""
    console.print(_headline(report))
    for number, cause in enumerate(report.causes):
        share = f" · {cause.lost_s / report.elapsed_s:.0%} of the run" if cause.lost_s else ""
        head = "first limit" if number == 0 else "then"
        console.print(
            Panel(
                f"{escape(cause.evidence)}\n[bold]What to do:[/bold] {escape(cause.remedy)}",
                title=f"{head}: {cause.kind}{share}", title_align="left",
                border_style="red" if number == 0 and cause.lost_s else "dim",
            )
        )  # fmt: skip
    console.print(_path(report))
    console.print(_streams(report))


def _headline(report: Report) -> Table:
    how = "measured" if report.measured else "simulated"
    table = Table(
        title=f"{escape(report.net)}: {report.backend}, {report.mode}, {how}, "
        f"{report.n_steps} steps, {report.n_waits} waits",
        title_justify="left",
    )
    cells: dict[str, Any] = {
        "run": seconds_text(report.elapsed_s),
        "untraced": "-" if report.untraced_s is None else seconds_text(report.untraced_s),
        "work": seconds_text(report.work_s),
        "span": seconds_text(report.span_s),
        "work / span": f"{report.ratio:.2f}",
        "possible": f"{report.possible:.2f}",
        "overlap": f"{report.achieved:.2f}",
    }
    for head in cells:
        table.add_column(head, justify="right")
    table.add_row(*cells.values())
    return table


def _path(report: Report) -> Table:
    table = Table(title="critical path", title_justify="left")
    for head in ("node", "operator", "stream"):
        table.add_column(head, overflow="fold")
    for head in ("time", "late by"):
        table.add_column(head, justify="right")
    table.add_column("because of")
    words = {"stream": "its stream", "wait": "an event", "start": "the start"}
    shown = list(report.path)
    dropped = len(shown) - _LONGEST_PATH
    for number, step in enumerate(shown):
        if dropped > 0 and _LONGEST_PATH // 2 <= number < _LONGEST_PATH // 2 + dropped:
            if number == _LONGEST_PATH // 2:
                table.add_row(f"... {dropped} more ...")
            continue
        table.add_row(
            escape(step.name), step.op, step.stream, seconds_text(step.seconds),
            seconds_text(step.gap_s), words[step.after],
        )  # fmt: skip
    return table


def _streams(report: Report) -> Table:
    table = Table(title="streams", title_justify="left")
    table.add_column("stream")
    table.add_column("kind")
    for head in ("steps", "busy", "of the run"):
        table.add_column(head, justify="right")
    for stream in report.streams:
        table.add_row(
            stream.name, stream.kind, str(stream.n_steps), seconds_text(stream.busy_s),
            f"{stream.utilisation:.0%}",
        )  # fmt: skip
    return table
