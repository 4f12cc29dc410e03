"""``asyncnet inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from asyncnet_gpu import backends
from asyncnet_gpu.cli.common import JsonOption, NetArgument, ShapeOption, load_net, print_json
from asyncnet_gpu.cli.models import bound_net, inputs_of, make_inputs, open_net
from asyncnet_gpu.errors import AsyncNetError
from asyncnet_gpu.graph import Graph, build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.passes import run_passes
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.cost import node_cost
from asyncnet_gpu.plan.deps import find_dependencies
from asyncnet_gpu.plan.exact import maximum_matching

#: Pairs of ordered nodes beyond which the widest antichain is not searched.
MAX_PAIRS = 4_000_000


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(inspect)


def inspect(
    net: NetArgument,
    shape: ShapeOption = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=3", help="where shapes depend on values"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what a net is made of and how much of it can run at a time.

    Of an ONNX model first the operators in the file, supported or not; then, where the model can be
    loaded with the given shapes (free dimensions are 1), the net that it becomes.

    [bold]Example:[/bold] asyncnet inspect model.onnx --shape x=1,3,224,224
    """
    report: dict[str, Any] = {"file": net, "bytes": None}
    if Path(net).suffix == ".onnx":
        report.update(_of_file(net))
    try:
        report["net"] = _of_net(net, shape, inputs)
        report["problem"] = None
    except AsyncNetError as error:
        if Path(net).suffix != ".onnx":
            raise
        report["net"], report["problem"] = None, str(error)
    if json:
        print_json(report)
    else:
        _print(report)


# -- the file ------------------------------------------------------------------------------------


def _of_file(path: str) -> dict[str, Any]:
    """Describe an ONNX file without loading it as a net."""
    from asyncnet_gpu.onnx import Limits
    from asyncnet_gpu.onnx.census import count_operators
    from asyncnet_gpu.onnx.model import model_inputs
    from asyncnet_gpu.onnx.reader import opsets_of, read_model

    model, _ = read_model(path, Limits())
    operators = count_operators(model)
    return {
        "bytes": Path(path).stat().st_size,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opsets": {domain or "ai.onnx": v for domain, v in opsets_of(model.opset_import).items()},
        "nodes": sum(entry.count for entry in operators),
        "operators": [
            {"name": e.name, "count": e.count, "support": e.support} for e in operators
        ],
        "unsupported": [e.name for e in operators if e.support == "no"],
        "inputs": {e.name: _value(e) for e in model_inputs(model)},
        "outputs": {e.name: _value(e) for e in model.graph.output},
    }  # fmt: skip


def _value(entry: Any) -> dict[str, Any]:
    """Describe an input or output as the file does; an extent that is text or None is free."""
    from onnx import TensorProto

    kind = entry.type.WhichOneof("value")
    if kind != "tensor_type":
        return {"dtype": str(kind), "shape": None}
    tensor = entry.type.tensor_type
    names = {number: name for name, number in TensorProto.DataType.items()}
    shape = None
    if tensor.HasField("shape"):
        shape = [d.dim_value if d.HasField("dim_value") else str(d.dim_param) or None
                 for d in tensor.shape.dim]  # fmt: skip
    return {"dtype": names.get(tensor.elem_type, "?").lower(), "shape": shape}


# -- the net -------------------------------------------------------------------------------------


def _of_net(target: str, shapes: list[str] | None, given: list[str] | None) -> dict[str, Any]:
    """Describe the net that a target becomes."""
    opened = open_net(target) if Path(target).suffix == ".onnx" else load_net(target)
    arrays = make_inputs(inputs_of(opened), given, shapes, seed=0)
    net = bound_net(opened, arrays)
    graph = run_passes(build_graph(net))
    model = backends.load("cpu").model()
    seconds = [model.seconds(node_cost(graph, node)) for node in graph.nodes]
    before = [list(edges) for edges in find_dependencies(graph)]
    work, span = sum(seconds), _longest_path(seconds, before)
    costs = [node_cost(graph, node) for node in graph.nodes]
    return {
        "inputs": {n: f"{a.dtype}{list(a.shape)}" for n, a in arrays.items()},
        "nodes_written": len(net.definitions),
        "nodes": len(graph.nodes),
        "operators": _operators(net),
        "widest_antichain": widest_antichain(before),
        "work_over_span": work / span if span else 1.0,
        "gflop": sum(c.flops for c in costs) / 1e9,
        "parameter_bytes": sum(
            s.nbytes for s in graph.storages if s.kind in ("parameter", "state", "constant")
        ),
        "arena_bytes": {mode: _arena_bytes(graph, mode) for mode in ("serial", "streams")},
        "intermediate_bytes": sum(
            s.nbytes for s in graph.storages if s.kind in ("temporary", "output")
        ),
    }


def _operators(net: AsyncNet) -> dict[str, int]:
    counts: dict[str, int] = {}
    for definition in net.definitions:
        counts[definition.op.kind] = counts.get(definition.op.kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _arena_bytes(graph: Graph, mode: str) -> int:
    plan = make_plan(place(graph), device_kind="cpu", model=backends.load("cpu").model(), mode=mode)
    return sum(plan.arena_bytes.values())


def _longest_path(seconds: list[float], before: list[list[int]]) -> float:
    ends: list[float] = []
    for node, cost in enumerate(seconds):
        ends.append(cost + max((ends[p] for p in before[node]), default=0.0))
    return max(ends, default=0.0)


def widest_antichain(before: list[list[int]]) -> int | None:
    """Return the largest number of nodes of which none must come before another.

    Nodes less the maximum matching of the transitive closure: Dilworth 1950, Fulkerson 1956.

    Parameters
    ----------
    before
        For each node its predecessors, all of smaller index.

    Returns
    -------
    The number, or None when the closure has more than `MAX_PAIRS` pairs.
    """
    ancestors: list[int] = []
    successors: list[list[int]] = [[] for _ in before]
    n_pairs = 0
    for node, edges in enumerate(before):
        found = 0
        for p in edges:
            found |= ancestors[p] | 1 << p
        ancestors.append(found)
        n_pairs += found.bit_count()
        if n_pairs > MAX_PAIRS:
            return None
        while found:
            lowest = found & -found
            successors[lowest.bit_length() - 1].append(node)
            found ^= lowest
    leads = maximum_matching(successors, len(before))
    return sum(lead < 0 for lead in leads)


# -- for people ----------------------------------------------------------------------------------

_SUPPORT = {"yes": "[green]yes", "function": "[yellow]by its definition", "no": "[red]NO"}


def _print(report: dict[str, Any]) -> None:
    console = Console()
    if "operators" in report:
        _print_file(console, report)
    if report["net"] is not None:
        _print_net(console, report["net"])
    else:
        console.print(f"[red]not loaded:[/red] {escape(report['problem'])}", highlight=False)


def _print_file(console: Console, report: dict[str, Any]) -> None:
    opsets = ", ".join(f"{domain} {version}" for domain, version in report["opsets"].items())
    console.print(f"{escape(report['file'])}: {report['bytes']:,} bytes, {report['nodes']} nodes, "
                  f"opset {escape(opsets)}, {escape(report['producer'] or 'unknown producer')}",
                  highlight=False)  # fmt: skip
    table = Table(title="values", title_justify="left")
    for column in ("", "name", "dtype", "shape"):
        table.add_column(column, overflow="fold")
    for kind in ("inputs", "outputs"):
        for name, entry in report[kind].items():
            extents = ["?" if e is None else str(e) for e in entry["shape"] or ()]
            shape = "unknown" if entry["shape"] is None else f"[{', '.join(extents)}]"
            table.add_row(kind[:-1], escape(name), entry["dtype"], escape(shape))
    console.print(table)
    table = Table(title="operators", title_justify="left")
    table.add_column("operator", overflow="fold")
    table.add_column("nodes", justify="right")
    table.add_column("supported")
    for entry in report["operators"]:
        table.add_row(escape(entry["name"]), str(entry["count"]), _SUPPORT[entry["support"]])
    console.print(table)


def _print_net(console: Console, net: dict[str, Any]) -> None:
    given = ", ".join(f"{name} {text}" for name, text in net["inputs"].items())
    table = Table(title=escape(f"as a net, for {given or 'no inputs'}"), title_justify="left",
                  show_header=False)  # fmt: skip
    table.add_column()
    table.add_column(justify="right")
    arena = net["arena_bytes"]
    width = net["widest_antichain"]
    rows = {
        "nodes": f"{net['nodes']} ({net['nodes_written']} before folding and views)",
        "widest antichain": "not searched: too many nodes" if width is None else str(width),
        "work / span (cost model of the CPU)": f"{net['work_over_span']:.2f}",
        "work": f"{net['gflop']:.3f} GFLOP",
        "parameters and constants": f"{net['parameter_bytes']:,} bytes",
        "arena, serial": f"{arena['serial']:,} bytes",
        "arena, streams": f"{arena['streams']:,} bytes",
        "sum of all intermediates": f"{net['intermediate_bytes']:,} bytes",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    console.print(table)
