"""``asyncnet trace``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

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
from asyncnet_gpu.cli.planning import load_bound, settled
from asyncnet_gpu.executor import Executable
from asyncnet_gpu.report.words import seconds_text
from asyncnet_gpu.timeline import Timeline


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(trace)


def trace(
    net: NetArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Chrome trace JSON (Perfetto opens it)")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="a page that shows the runs; one file, no network")
    ] = None,
    backend: BackendOption = "auto",
    mode: ModeOption = "streams",
    allocator: AllocatorOption = "cost",
    max_streams: StreamsOption = None,
    slots: Annotated[int, typer.Option(min=1, help="runs in flight")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="runs to trace")] = 3,
    warm_up: Annotated[int, typer.Option(min=0, help="runs before, not traced")] = 3,
    shape: ShapeOption = None,
    inputs: InputOption = None,
    seed: SeedOption = 0,
    nvtx: Annotated[bool, typer.Option("--nvtx", help="also mark steps for Nsight")] = False,
    json: JsonOption = False,
) -> None:
    """Run a net and write when each step really ran.

    Without --out and --html the trace goes to NET.trace.json in the current folder.

    [bold]Examples:[/bold]

    asyncnet trace net.py:make --html timeline.html

    asyncnet trace model.onnx --backend cuda --slots 2 --runs 8 -o trace.json
    """
    files = _files(net, out, html)
    bound, arrays = load_bound(net, shape, inputs, seed)
    with bound.compile(
        backend=backend, mode=mode, allocator=allocator, max_streams=max_streams, slots=slots
    ) as exe:
        timeline = _run(exe, arrays, runs, warm_up, nvtx)
        used = exe.backend
    for file in files:
        if file is html:
            file.write_text(timeline.to_html(), encoding="utf-8")
        else:
            timeline.save(file)
    report = timeline.report()
    if json:
        print_json({
            "net": bound.name, "backend": used, "mode": timeline.plan.mode,
            "steps": len(timeline.plan.steps), "waits": timeline.plan.n_waits,
            "runs": [{"slot": r.slot, "elapsed_s": r.elapsed_s} for r in timeline.runs],
            "files": [str(file) for file in files], "limit": report.limit.kind,
        })  # fmt: skip
        return
    console = Console()
    for file in files:
        console.print(f"wrote {escape(str(file))}", highlight=False, soft_wrap=True)
    console.print(
        f"{escape(bound.name)}: {len(timeline.runs)} runs of {len(timeline.plan.steps)} steps, the "
        f"fastest {seconds_text(report.elapsed_s)}, {report.achieved:.2f} steps at a time; first "
        f"limit: {report.limit.kind} (asyncnet explain says more)"
    )


def _files(net: str, out: Path | None, html: Path | None) -> list[Path]:
    """Return what to write; checked before the work, not after it."""
    files = [file for file in (out, html) if file is not None]
    for file in files:
        if not file.parent.is_dir() or file.is_dir():
            raise typer.BadParameter(f"{file}: expected a file in a folder that exists")
    return files or [Path(f"{Path(net.partition(':')[0]).stem}.trace.json")]


def _run(exe: Executable, arrays: dict[str, Any], runs: int, warm_up: int, nvtx: bool) -> Timeline:
    """Trace runs one after the other, or all at once where there are several slots."""
    settled(exe, arrays)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("running", total=warm_up + runs)
        for _ in range(warm_up):
            exe.run(arrays)
            progress.advance(task)
        with exe.trace(nvtx=nvtx) as timeline:
            if exe.slots == 1:
                for _ in range(runs):
                    exe.run(arrays)
                    progress.advance(task)
            else:
                for run in [exe.submit(arrays) for _ in range(runs)]:
                    run.result()
                    progress.advance(task)
    return timeline
