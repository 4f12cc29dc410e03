"""``asyncnet run``."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from asyncnet_gpu.api import to_numpy
from asyncnet_gpu.cli.common import (
    InputOption,
    JsonOption,
    ModeOption,
    NetArgument,
    SeedOption,
    ShapeOption,
    print_json,
)
from asyncnet_gpu.cli.models import difference, inputs_of, make_inputs, number, open_net, summary
from asyncnet_gpu.errors import NetError, message

Array = np.ndarray[Any, Any]


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(run)


def run(
    net: NetArgument,
    inputs: InputOption = None,
    shape: ShapeOption = None,
    backend: Annotated[str, typer.Option(help="cpu, cuda or auto")] = "auto",
    mode: ModeOption = "auto",
    seed: SeedOption = 0,
    repeat: Annotated[int, typer.Option(min=0, help="timed runs after the first")] = 5,
    compare: Annotated[
        str | None,
        typer.Option(metavar="onnxruntime", help="run there too; status 3 if different"),
    ] = None,
    rtol: Annotated[float, typer.Option(min=0, help="relative tolerance of --compare")] = 1e-3,
    atol: Annotated[float, typer.Option(min=0, help="absolute tolerance of --compare")] = 1e-4,
    out: Annotated[
        Path | None, typer.Option(help="folder for the outputs, as NAME.npy", file_okay=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a net once and show its outputs.

    Inputs that are not given are random (seeded): normal floats, integers 0 and 1. Free dimensions
    are 1 unless --shape or a given input says more.

    [bold]Example:[/bold] asyncnet run model.onnx --input x=photo.npy --compare onnxruntime
    """
    if compare not in (None, "onnxruntime"):
        raise typer.BadParameter(f"--compare {compare}: only onnxruntime is known")
    if backend == "sim":
        raise typer.BadParameter("--backend sim computes nothing; asyncnet explain simulates")
    if compare and Path(net).suffix != ".onnx":
        raise typer.BadParameter("--compare needs an .onnx file")
    arrays, outputs, report = _execute(net, inputs, shape, backend, mode, seed, repeat)
    report["outputs"] = {
        name: {"dtype": a.dtype.name, "shape": list(a.shape), "summary": summary(a)}
        for name, a in outputs.items()
    }
    if compare:
        _compare(net, arrays, outputs, report, rtol, atol)
    if out is not None:
        report["files"] = _save(out, outputs)
    if json:
        print_json(report)
    else:
        _print(report)
    if compare and not all(entry["equal"] for entry in report["onnxruntime"].values()):
        raise typer.Exit(3)


def _execute(
    target: str, given: list[str] | None, shape: list[str] | None, backend: str, mode: str,
    seed: int, repeat: int,
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Any]]:  # fmt: skip
    """Load, compile and run; return inputs, outputs and what is to be said about them."""
    start = time.perf_counter()
    net = open_net(target)
    loaded = time.perf_counter()
    arrays = make_inputs(inputs_of(net), given, shape, seed)
    with net.compile(backend=backend, mode=mode) as exe:
        begun = time.perf_counter()
        results = exe.run(arrays)
        first = time.perf_counter()
        outputs = {name: to_numpy(array) for name, array in results.items()}
        times_ms = []
        for _ in range(repeat):
            again = time.perf_counter()
            exe.run(arrays)
            times_ms.append(1e3 * (time.perf_counter() - again))
        report = {
            "net": net.name, **_plans_used(exe), "seed": seed,
            "inputs": {
                n: {"dtype": a.dtype.name, "shape": list(a.shape),
                    "random": all(g.partition("=")[0] != n for g in given or ())}
                for n, a in arrays.items()
            },
            "load_ms": 1e3 * (loaded - start), "first_run_ms": 1e3 * (first - begun),
            "run_ms": statistics.median(times_ms) if times_ms else None, "runs": repeat,
        }  # fmt: skip
    return arrays, outputs, report


def _plans_used(exe: Any) -> dict[str, Any]:
    """Return facts about the plan of the last run, or the plans where the model runs in stages."""
    parts = getattr(exe, "stages", (exe,))
    plans = [part.plan for part in parts]
    return {
        "backend": ", ".join(dict.fromkeys(part.backend for part in parts)) or "host",
        "mode": ", ".join(dict.fromkeys(part.mode for part in parts)) or "no plan",
        "why": "; ".join(dict.fromkeys(part.why for part in parts)),
        "steps": sum(len(plan.steps) for plan in plans),
        "streams": max((len(plan.streams) for plan in plans), default=0),
        "stages": len(parts),
    }


def onnxruntime_outputs(model: str | bytes, arrays: dict[str, Array]) -> dict[str, Array]:
    """Run a model with onnxruntime on the CPU; raise `NetError` when it does not."""
    try:
        import onnxruntime
    except ImportError:
        raise NetError(
            message("cli", "--compare onnxruntime", expected="the package onnxruntime", got="none",
                    remedy="pip install onnxruntime.")
        ) from None  # fmt: skip
    try:
        onnxruntime.set_default_logger_severity(3)
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_outputs()]
        return dict(zip(names, session.run(names, arrays), strict=True))
    except Exception as error:
        # onnxruntime's errors have no common base below Exception.
        raise NetError(
            message("onnxruntime", "the model does not run there", expected="outputs",
                    got=" ".join(str(error).split())[:500], remedy="Leave out --compare.")
        ) from error  # fmt: skip


def _compare(
    target: str, arrays: dict[str, Array], outputs: dict[str, Array], report: dict[str, Any],
    rtol: float, atol: float,
) -> None:  # fmt: skip
    theirs = onnxruntime_outputs(target, arrays)
    report["tolerance"] = {"rtol": rtol, "atol": atol}
    report["onnxruntime"] = {
        name: difference(array, np.asarray(theirs[name]), rtol=rtol, atol=atol).to_dict()
        for name, array in outputs.items()
    }


def _save(folder: Path, outputs: dict[str, Array]) -> dict[str, str]:
    """Write each output to a file; a name becomes one that every file system takes."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for name, array in outputs.items():
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".") or "out"
        path = folder / f"{stem}.npy"
        if str(path) in files.values():
            path = folder / f"{stem}.{len(files)}.npy"
        np.save(path, array)
        files[name] = str(path)
    return files


def _print(report: dict[str, Any]) -> None:
    console = Console()
    for title in ("inputs", "outputs"):
        table = Table(title=title, title_justify="left")
        for column in ("name", "dtype", "shape", "values"):
            table.add_column(column, overflow="fold")
        for name, entry in report[title].items():
            values = entry.get("summary", f"random, seed {report['seed']}"
                               if entry.get("random") else "given")  # fmt: skip
            table.add_row(escape(name), entry["dtype"], escape(str(entry["shape"])), escape(values))
        console.print(table)
    if "onnxruntime" in report:
        _print_comparison(console, report)
    for name, path in report.get("files", {}).items():
        console.print(f"{escape(name)} -> {escape(path)}", highlight=False)
    again = ""
    if report["run_ms"] is not None:
        again = f", then {report['run_ms']:.2f} ms (median of {report['runs']})"
    stages = f", in {report['stages']} stages" if report["stages"] != 1 else ""
    console.print(
        f"{escape(report['net'])}: {report['backend']}, {report['mode']}, {report['steps']} steps "
        f"on {report['streams']} streams{stages}; first run {report['first_run_ms']:.1f} ms{again}"
    )


def _print_comparison(console: Console, report: dict[str, Any]) -> None:
    limit = report["tolerance"]
    table = Table(title=f"against onnxruntime (rtol {limit['rtol']:g}, atol {limit['atol']:g})",
                  title_justify="left")  # fmt: skip
    for column in ("output", "max abs", "max rel", "elements apart", ""):
        table.add_column(column, overflow="fold")
    for name, entry in report["onnxruntime"].items():
        verdict = "[green]equal" if entry["equal"] else f"[red]DIFFERENT {escape(entry['note'])}"
        table.add_row(escape(name), number(entry["max_abs"]), number(entry["max_rel"]),
                      str(entry["count"]), verdict)  # fmt: skip
    console.print(table)
