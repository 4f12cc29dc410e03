"""``asyncnet compare``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from asyncnet_gpu.api import to_numpy
from asyncnet_gpu.backends import available
from asyncnet_gpu.cli.common import (
    InputOption,
    JsonOption,
    NetArgument,
    SeedOption,
    ShapeOption,
    print_json,
)
from asyncnet_gpu.cli.models import (
    Difference,
    bound_net,
    difference,
    inputs_of,
    make_inputs,
    number,
    open_net,
)
from asyncnet_gpu.cli.run import onnxruntime_outputs
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.plan.types import MODES

Array = np.ndarray[Any, Any]

ORT = "onnxruntime"
#: Tolerance between different backends; modes of one backend must agree to the bit.
RTOL, ATOL = 1e-3, 1e-4


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(compare)


def compare(
    net: NetArgument,
    left: Annotated[str, typer.Option(metavar="BACKEND:MODE", help="what to trust")] = "cpu:serial",
    right: Annotated[
        str,
        typer.Option(metavar="BACKEND:MODE", help="what to hold against it, or onnxruntime"),
    ] = "cpu:streams",
    inputs: InputOption = None,
    shape: ShapeOption = None,
    seed: SeedOption = 0,
    runs: Annotated[int, typer.Option(min=1, help="runs of each; races need several")] = 3,
    rtol: Annotated[
        float | None,
        typer.Option(min=0, help=f"relative tolerance; {RTOL:g} across backends, else 0"),
    ] = None,
    atol: Annotated[
        float | None,
        typer.Option(min=0, help=f"absolute tolerance; {ATOL:g} across backends, else 0"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Find the first node at which two backends or modes differ, or one and onnxruntime.

    The outputs are compared as the net is; then the net runs again with every value kept, and the
    first node in topological order whose result differs is named. Status 3 when the outputs or a
    node differ.

    [bold]Examples:[/bold] asyncnet compare model.onnx --left cpu:serial --right cuda:graph;
    asyncnet compare model.onnx --right onnxruntime
    """
    sides = _side(left), (right, "") if right == ORT else _side(right)
    exact = sides[0][0] == sides[1][0]
    tolerance = (
        (0.0 if exact else RTOL) if rtol is None else rtol,
        ((0.0 if exact else ATOL) if atol is None else atol),
    )
    opened = open_net(net)
    arrays = make_inputs(inputs_of(opened), inputs, shape, seed)
    bound = bound_net(opened, arrays)
    kept, makers = with_every_value(bound)
    if right == ORT:
        model = onnx_with_every_value(net, kept)
        outputs = _apart_from_onnxruntime(bound, model, sides[0], arrays, tolerance)
        values = _apart_from_onnxruntime(kept, model, sides[0], arrays, tolerance)
    else:
        arrays = {name: arrays[name] for name in inputs_of(bound)}
        outputs = _differences(bound, sides, arrays, runs, tolerance)
        values = _differences(kept, sides, arrays, runs, tolerance)
    first = next((n for n in makers if n in values and not values[n].equal), None)
    report: dict[str, Any] = {
        "net": bound.name, "left": left, "right": right, "runs": runs,
        "rtol": tolerance[0], "atol": tolerance[1], "nodes": len(bound.definitions),
        "outputs": {name: d.to_dict() for name, d in outputs.items()},
        "first": None if first is None else _node(bound, first, makers[first], values[first]),
        "values_apart": sum(not d.equal for d in values.values()),
        "equal": first is None and all(d.equal for d in outputs.values()),
    }  # fmt: skip
    if first is not None and Path(net).suffix == ".onnx":
        report["first"]["line"] = net  # the line that added the node is the importer's
    if json:
        print_json(report)
    else:
        _print(report)
    if not report["equal"]:
        raise typer.Exit(3)


def _side(text: str) -> tuple[str, str]:
    backend, _, mode = text.partition(":")
    mode = mode or "serial"
    if backend not in available() or backend == "sim" or mode not in MODES:
        names = ", ".join(b for b in available() if b != "sim")
        raise typer.BadParameter(
            f"expected BACKEND:MODE with a backend of {names} and a mode of {', '.join(MODES)} "
            f"(--right also onnxruntime), got {text!r}"
        )
    return backend, mode


def with_every_value(net: AsyncNet) -> tuple[AsyncNet, dict[str, int]]:
    """Return the net with the result of every node among its outputs.

    Returns
    -------
    The net, which shares the definition of the one given, and the outputs in topological order
    with the index of the node that makes each.
    """
    kept = copy.copy(net)
    makers: dict[str, int] = {}
    for index, definition in enumerate(net.definitions):
        for name in definition.outputs:
            makers.setdefault(name, index)
    kept.outputs = {name: name for name in makers}
    return kept, makers


def _differences(
    net: AsyncNet, sides: tuple[tuple[str, str], tuple[str, str]], arrays: dict[str, Array],
    runs: int, tolerance: tuple[float, float],
) -> dict[str, Difference]:  # fmt: skip
    """Run both; return for each output the largest difference of any run."""
    rtol, atol = tolerance
    worst: dict[str, Difference] = {}
    (left_backend, left_mode), (right_backend, right_mode) = sides
    with (
        net.compile(backend=left_backend, mode=left_mode) as one,
        net.compile(backend=right_backend, mode=right_mode) as other,
    ):
        for _ in range(runs):  # in turn, so that parameters that runs update stay in step
            a, b = one.run(arrays), other.run(arrays)
            for name in a:
                found = difference(to_numpy(a[name]), to_numpy(b[name]), rtol=rtol, atol=atol)
                before = worst.get(name)
                if before is None or (found.count, found.max_abs) > (before.count, before.max_abs):
                    worst[name] = found
    return worst


def onnx_with_every_value(target: str, kept: AsyncNet) -> bytes:
    """Return a model for onnxruntime that gives every value which the net has under its name.

    The file itself where the net came from one, so that nothing of ours lies in between; else the
    net, exported.
    """
    import onnx

    from asyncnet_gpu.onnx import export_model

    if Path(target).suffix != ".onnx":
        exported: bytes = export_model(kept).SerializeToString()
        return exported
    model = onnx.load(target)
    there = {entry.name for entry in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name in kept.outputs and name not in there:
                there.add(name)
                model.graph.output.append(onnx.ValueInfoProto(name=name))
    data: bytes = model.SerializeToString()
    return data


def _apart_from_onnxruntime(
    net: AsyncNet, model: bytes, side: tuple[str, str], arrays: dict[str, Array],
    tolerance: tuple[float, float],
) -> dict[str, Difference]:  # fmt: skip
    """Return for each value that both have how they differ."""
    theirs = onnxruntime_outputs(model, arrays)
    with net.compile(backend=side[0], mode=side[1]) as exe:
        ours = exe.run({name: arrays[name] for name in inputs_of(net)})
    return {
        name: difference(
            to_numpy(array), np.asarray(theirs[name]), rtol=tolerance[0], atol=tolerance[1]
        )
        for name, array in ours.items()
        if name in theirs
    }


def _node(net: AsyncNet, blob: str, index: int, found: Difference) -> dict[str, Any]:
    definition = net.definitions[index]
    return {
        "node": definition.name, "op": definition.op.kind, "index": index, "value": blob,
        "inputs": {name: str(net.spec_of(name)) for name in definition.inputs},
        "spec": str(net.spec_of(blob)), "line": definition.line, **found.to_dict(),
    }  # fmt: skip


def _print(report: dict[str, Any]) -> None:
    console = Console()
    limits = "to the bit"
    if report["rtol"] or report["atol"]:
        limits = f"within rtol {report['rtol']:g}, atol {report['atol']:g}"
    table = Table(
        title=f"{report['left']} against {report['right']}, {limits}", title_justify="left"
    )
    for column in ("output", "max abs", "max rel", "elements apart", ""):
        table.add_column(column, overflow="fold")
    for name, entry in report["outputs"].items():
        verdict = "[green]equal" if entry["equal"] else f"[red]DIFFERENT {escape(entry['note'])}"
        table.add_row(escape(name), number(entry["max_abs"]), number(entry["max_rel"]),
                      str(entry["count"]), verdict)  # fmt: skip
    console.print(table)
    first = report["first"]
    if first is not None:
        given = ", ".join(f"{name}: {text}" for name, text in first["inputs"].items())
        console.print(
            f"first difference at node {first['index'] + 1} of {report['nodes']}: "
            f"{escape(first['op'])} {escape(repr(first['node']))} ({escape(given)}) -> "
            f"{escape(first['value'])}: {escape(first['spec'])}, max abs "
            f"{number(first['max_abs'])}, max rel {number(first['max_rel'])}, "
            f"{first['count']} elements {escape(first['note'])}\n"
            f"from {escape(first['line'])}; {report['values_apart']} values differ in all",
            highlight=False,
        )
    elif not report["equal"]:
        console.print(
            "With every value kept nothing differs: look at what that changes, the reuse of memory "
            "and the order of steps (asyncnet verify)."
        )
    else:
        console.print(f"all {report['nodes']} nodes agree in {report['runs']} runs")
