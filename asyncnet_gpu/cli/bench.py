"""``asyncnet bench``."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from asyncnet_gpu.errors import NetError, message

_PACKAGE = "asyncnet_gpu._benchmarks"


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(bench)


def bench(
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="grcuda, interop, wavefront, taskbench, launch, requests, overhead or all; "
            "may be given several times; grcuda if not given"
        ),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="workload to take from the suites")] = None,
    backend: Annotated[str, typer.Option(help="cpu, cuda or auto")] = "auto",
    scale: Annotated[
        float | None,
        typer.Option(help="of the number of elements; 1 on the CPU, 8 on a GPU if not given"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="of every candidate; without it as many as fit")
    ] = None,
    seconds: Annotated[float, typer.Option(help="for the rounds of one workload")] = 8.0,
    seed: Annotated[int, typer.Option(help="of the order of candidates in a round")] = 0,
    rivals: Annotated[bool, typer.Option(help="measure rivals too")] = True,
    pin: Annotated[
        bool, typer.Option(help="bind each thread to a core (Linux): for machines with other work")
    ] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="write the results; - prints them")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="write the tables as Markdown; - prints them")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="draw the ratios (PNG, SVG, PDF)")] = None,
    timelines: Annotated[
        Path | None, typer.Option(help="folder for pictures of one run of each mode")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD NEW", help="compare two results; exit code 3 on a regression"),
    ] = None,
) -> None:
    """Measure streams against serial and against rivals, or compare two results.

    Outputs are compared before anything is timed, and candidates take turns. Without a GPU no
    device time is printed.

    [bold]Examples:[/bold]

    asyncnet bench --suite grcuda --backend cpu --json new.json --picture new.png

    asyncnet bench --compare old.json new.json
    """
    if compare is not None:
        _compare(*compare)
        return
    # libgomp's threads spin after their work unless told otherwise before they are loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    runner, measure = _module("suites.runner"), _module("suites.measure")
    chosen = runner.choose_backend(backend)
    real = chosen != "cuda" or runner.real_device()
    options = measure.Options(
        backend=chosen, real_device=real, scale=scale or _usual_scale(chosen, real),
        rounds=rounds, seconds=seconds, seed=seed, rivals=rivals, pin=pin,
        timelines=timelines,
    )  # fmt: skip
    progress = Console(stderr=True)
    with progress.status("bench") as status:
        document = runner.run(
            suite or ["grcuda"], options, only=only or (),
            progress=lambda name, workload: status.update(f"{name}: {workload}"),
        )  # fmt: skip
    _write(document, json_path, markdown, picture)


def _usual_scale(backend: str, real_device: bool) -> float:
    """Return sizes that take long enough to be measured; where nothing is timed, small ones."""
    if backend != "cuda":
        return 1.0
    return 8.0 if real_device else 0.01


def _write(
    document: Any, json_path: Path | None, markdown: Path | None, picture: Path | None
) -> None:
    report = _module("suites.report")
    quiet = False
    for path, text in (
        (json_path, json.dumps(document, indent=1) + "\n"),
        (markdown, report.to_markdown(document) if markdown else ""),
    ):
        if path == Path("-"):
            sys.stdout.write(text)
            quiet = True
        elif path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if picture is not None and document["host_only"]:
        print("no picture: without a GPU nothing was timed", file=sys.stderr)
    elif picture is not None:
        report.draw(document, picture)
    if not quiet:
        for grid in report.grids(document):
            _print_grid(grid)


def _print_grid(grid: Any) -> None:
    table = Table(title=grid.title)
    for i, head in enumerate(grid.heads):
        table.add_column(head, justify="right" if i else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*row)
    console = _console()
    console.print(table)
    for note in grid.notes:
        console.print(f"  {note}", highlight=False)


def _console() -> Console:
    """Return stdout; into a file or a pipe tables are as wide as they like."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _compare(old: Path, new: Path) -> None:
    """Print what changed; raise `typer.Exit` with code 3 when something got slower."""
    documents = []
    for path in (old, new):
        try:
            documents.append(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise NetError(
                message("bench", f"cannot read {path}", expected="JSON written by asyncnet bench",
                        got=str(error), remedy="asyncnet bench --json PATH")
            ) from error  # fmt: skip
    changes = _module("suites.compare").compare(*documents)
    table = Table(title="new over old, relative to the plain rival of the same round")
    for i, head in enumerate(("what", "time", "noise", "")):
        table.add_column(head, justify="right" if i in (1, 2) else "left")
    for c in changes:
        verdict = "slower" if c.regressed else "faster" if c.improved else ""
        table.add_row(c.name, f"x {c.ratio:.3f}", f"{c.noise:.0%}", verdict)
    _console().print(table)
    if any(c.regressed for c in changes):
        raise typer.Exit(3)
    if not changes:
        raise NetError(
            message("bench", "nothing to compare", expected="a workload of equal size in both",
                    got=f"{old}, {new}", remedy="Run the same suites at the same --scale.")
        )  # fmt: skip


def _module(name: str) -> Any:
    """Import a module of the benchmarks, from the wheel or from the checkout around the package."""
    if _PACKAGE not in sys.modules and importlib.util.find_spec(_PACKAGE) is None:
        folder = Path(__file__).resolve().parents[2] / "benchmarks"
        start = folder / "__init__.py"
        if not start.is_file():
            raise NetError(
                message("bench", "the benchmarks are not installed", expected=str(folder),
                        got="nothing there", remedy="Install the wheel, or run from a checkout.")
            )  # fmt: skip
        spec = importlib.util.spec_from_file_location(
            _PACKAGE, start, submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[_PACKAGE] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{_PACKAGE}.{name}")
