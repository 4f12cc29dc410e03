"""Results for people: tables (for the terminal and as Markdown) and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncnet_gpu.errors import AsyncNetError, message

from .runner import Document

HOST_ONLY = (
    "There is no GPU behind the CUDA devices, so no device was timed: numbers are how long a "
    "caller is busy until a run is under way."
)


_HOW = (
    "Medians over interleaved rounds; outputs checked before anything was timed: ours bit by bit, "
    "rivals within tolerance."
)
_ALLOWED = (
    "allowed: min(cores, work / span). ceiling: speed-up of two serial runs at once over one after "
    "the other, what this machine gives. reached: streams over the smaller of both. Modes with "
    "several streams are planned by the times of the serial steps (compile(measured=...))."
)


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: the first column is text, all others are numbers in words."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def grids(document: Document) -> list[Grid]:
    """Return a table for each suite."""
    made = []
    for suite, found in document["suites"].items():
        if suite == "overhead":
            made.append(_overhead(found))
        elif suite == "requests":
            made.append(_requests(found))
        else:
            made.append(_workloads(suite, found, document))
            if found.get("metg"):
                made.append(_metg(found["metg"]))
    return made


def _workloads(suite: str, found: Mapping[str, Any], document: Document) -> Grid:
    rows = found["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row["candidates"]))
    if document["host_only"]:
        heads = ("workload, data", *(f"{n} us" for n in names))
        body = [
            (f"{r['workload']}, {r['data']}",
             *(_number(r["candidates"].get(n, {}).get("host_ms"), 1e3, ".0f") for n in names))
            for r in rows
        ]  # fmt: skip
        return Grid(f"{suite}: host time of one run", heads, tuple(body), (HOST_ONLY,))
    on_cpu = document["backend"] == "cpu"
    others = [n for n in names if n != "serial"]
    measured = ("allowed", "ceiling", "reached") if on_cpu else ("device ms", "host ms")
    heads = ("workload", "serial ms", *measured, *(f"{n} x" for n in others))
    body = []
    for row in rows:
        serial = row["candidates"]["serial"]
        if on_cpu:
            middle = [_number(row["bound"], 1, ".2f"), _number(row.get("ceiling"), 1, ".2f"),
                      _number(row.get("reached"), 1, ".0%")]  # fmt: skip
        else:
            middle = [_number(serial.get("device_ms"), 1, ".3f"),
                      _number(serial.get("host_ms"), 1, ".3f")]  # fmt: skip
        label = row["workload"] if on_cpu else f"{row['workload']}, {row['data']}"
        cells = [_number(row["candidates"].get(n, {}).get("speed_up"), 1, ".2f") for n in others]
        body.append((label, _number(serial["median_ms"], 1, ".2f"), *middle, *cells))
    return Grid(f"{suite}: speed-up over serial", heads, tuple(body), _notes(rows, on_cpu))


def _notes(rows: Sequence[Mapping[str, Any]], on_cpu: bool) -> tuple[str, ...]:
    notes = [_HOW]
    if on_cpu:
        notes.append(_ALLOWED)
    for row in rows:
        auto = row["candidates"].get("auto", {}).get("note", "").split(";")[0]
        spreads = max(c.get("spread", 0.0) for c in row["candidates"].values())
        notes.append(f"{row['workload']}: {row['sizes']}; auto {auto}; {row['rounds']} rounds, "
                     f"largest spread {spreads:.0%}")  # fmt: skip
    absent = {n: why for row in rows for n, why in row["absent"].items()}
    notes += [f"{name} absent where {why}" for name, why in absent.items()]
    return tuple(notes)


def _metg(rows: Sequence[Mapping[str, Any]]) -> Grid:
    patterns = list(dict.fromkeys(row["pattern"] for row in rows))
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    found = {(r["pattern"], r["mode"]): r["metg_us"] for r in rows}
    body = [(p, *(_number(found.get((p, m)), 1, ".1f") for m in modes)) for p in patterns]
    heads = ("pattern", *(f"{m} us" for m in modes))
    return Grid("taskbench: METG(50 %)", heads, tuple(body), ("Smaller is better.",))


def _requests(found: Mapping[str, Any]) -> Grid:
    heads = ("mode, in flight", "requests/s", "x one", "p50 ms", "p95 ms", "p99 ms")
    keys = ("requests_per_s", "over_one", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
    body = [
        (f"{r['mode']}, {r['in_flight']}", *(_number(r.get(k), 1, ".2f") for k in keys))
        for r in found["rows"]
    ]
    return Grid("requests in flight", heads, tuple(body))


def _overhead(found: Mapping[str, Any]) -> Grid:
    heads = ("system", "us per step", "x ours inline", "spread", "schedules")
    rows = sorted(found["rows"], key=lambda row: float(row["us_per_step"]))
    body = [
        (r["system"], f"{r['us_per_step']:.3f}", f"{r['over_inline']:.2f}", f"{r['spread']:.0%}",
         "yes" if r["schedules"] else "no")
        for r in rows
    ]  # fmt: skip
    notes = [f"{name}: not here, {why}" for name, why in found["absent"].items()]
    return Grid("overhead of a step that does nothing", heads, tuple(body), tuple(notes))


def _number(value: float | None, factor: float, form: str) -> str:
    return "-" if value is None else format(value * factor, form)


def to_markdown(document: Document) -> str:
    """Return all tables, and what they were measured on."""
    where = document["machine"]
    lines = [
        f"asyncnet_gpu {document['version']} ({document['commit'] or 'no commit'}), backend "
        f"{document['backend']}, {where['cores']} cores "
        f"({where.get('processor_name') or where['processor']}), Python {where['python']}, "
        + ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    ]
    for grid in grids(document):
        rule = ["---", *["---:"] * (len(grid.heads) - 1)]
        lines += ["", f"### {grid.title}", ""]
        lines += ["| " + " | ".join(cells) + " |" for cells in (grid.heads, rule, *grid.rows)]
        lines += ["", *(f"- {note}" for note in grid.notes)]
    return "\n".join(lines) + "\n"


def draw(document: Document, path: Path) -> None:
    """Draw the speed-up over serial mode of every candidate, with quartiles, one axis a suite.

    Raises
    ------
    AsyncNetError
        If matplotlib is missing, or nothing was timed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise AsyncNetError(
            message("bench", "a package is missing", expected="matplotlib", got=str(error),
                    remedy="pip install 'asyncnet-gpu[plot]'")
        ) from error  # fmt: skip
    mpl.use("Agg")
    from matplotlib import pyplot

    suites = {
        name: found["rows"]
        for name, found in document["suites"].items()
        if found["rows"] and "speed_up" in found["rows"][0].get("candidates", {}).get("serial", {})
    }
    if not suites:
        raise AsyncNetError(
            message("bench", "nothing to draw", expected="a suite of workloads that was timed",
                    got=", ".join(document["suites"]), remedy="Run --suite grcuda, say.")
        )  # fmt: skip
    figure, axes = pyplot.subplots(
        len(suites), 1, figsize=(13, 3.6 * len(suites)), squeeze=False, layout="constrained"
    )
    for axis, (suite, rows) in zip(axes[:, 0], suites.items(), strict=True):
        _bars(axis, suite, rows)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(axis: Any, suite: str, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(n for row in rows for n in row["candidates"] if n != "serial"))
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        for i, row in enumerate(rows):
            found = row["candidates"].get(name)
            if found is None:
                continue
            middle, (low, high) = found["speed_up"], found["speed_up_quartiles"]
            place = i + (k - (len(names) - 1) / 2) * width
            axis.bar(
                place, middle, width, color=f"C{k}", yerr=[[middle - low], [high - middle]],
                capsize=1.5, error_kw={"linewidth": 0.8}, label=name if i == 0 else None,
            )  # fmt: skip
    for i, row in enumerate(rows):
        if "bound" in row:
            axis.plot([i - 0.4, i + 0.4], [row["bound"]] * 2, color="black", linewidth=1)
    axis.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
    axis.set_xticks(range(len(rows)))
    axis.set_xticklabels([row["workload"] for row in rows])
    axis.set_ylabel("speed-up over serial")
    axis.set_title(f"{suite}: median and quartiles; black line: what the net allows")
    axis.legend(
        fontsize=8, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False
    )
