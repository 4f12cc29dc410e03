"""Real models against onnxruntime, with one thread and with two, as ratios of one interleaved run.

    pip install -r requirements/models.txt --no-deps && pip install onnxruntime
    python -m benchmarks.models --export           # needs torch, torchvision and timm, once
    python -m benchmarks.models [NAME ...] [--where N] [--save]

Outputs are compared before anything is timed: with onnxruntime within rtol 1e-3 and atol 1e-4, and
between our modes bit by bit. With one thread the time is that of the processor, with two that of
the clock on the wall: other work on the machine lengthens the second alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import asyncnet_gpu as ag
from benchmarks.harness import QuietRounds, machine, save
from benchmarks.nets.models import EXPORTS, MODELS, Model, export

RTOL, ATOL = 1e-3, 1e-4
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks-models.md"

#: Serial on the clock on the wall, to compare with streams.
WALL = "serial, wall"

#: Threads of onnxruntime and of the BLAS library spin for a while after a run: nobody is timed
#: meanwhile.
_REST_S = 0.04

#: Seconds that the timed rounds of one model may take, and how many rounds at most and at least.
_BUDGET_S, _MOST_ROUNDS, _FEWEST_ROUNDS = 6.0, 120, 5

#: Calls shorter than this are repeated within a turn.
_SHORT_S = 2e-3

#: Our candidates: options of `compile`.
OURS: Mapping[str, Mapping[str, Any]] = {
    "serial, 1 thread": {"mode": "serial", "blas_threads": 1},
    "serial, 2 threads": {"mode": "serial", "blas_threads": 2},
    "streams, 2 threads": {"mode": "streams", "blas_threads": 1, "max_streams": 2},
}

#: Those of onnxruntime: threads within an operator, threads between operators (0: sequential).
THEIRS: Mapping[str, tuple[int, int]] = {
    "onnxruntime, 1 thread": (1, 0),
    "onnxruntime, 2 threads": (2, 0),
    "onnxruntime parallel, 2 threads": (1, 2),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One model's result: milliseconds of the fastest round, least disturbed, and the median."""

    name: str
    n_steps: int
    n_streams: int
    work_over_span: float
    best_ms: Mapping[str, float]
    median_ms: Mapping[str, float]
    rounds: int
    surroundings: Mapping[str, Any]

    def ratio(self, n_threads: int, times: str = "best_ms") -> float:
        """Ours over onnxruntime's with that many threads, each in its best mode."""
        found: Mapping[str, float] = getattr(self, times)
        ending = f"{n_threads} thread{'s' * (n_threads > 1)}"
        ours = min(ms for name, ms in found.items() if name in OURS and name.endswith(ending))
        theirs = min(ms for name, ms in found.items() if name in THEIRS and name.endswith(ending))
        return ours / theirs

    @property
    def streams_gain(self) -> float:
        """Serial over streams, one BLAS thread in both."""
        return self.best_ms[WALL] / self.best_ms["streams, 2 threads"]

    def to_dict(self) -> dict[str, Any]:
        return {
            "n_steps": self.n_steps, "n_streams": self.n_streams,
            "work_over_span": round(self.work_over_span, 2),
            "best_ms": {k: round(v, 4) for k, v in self.best_ms.items()},
            "median_ms": {k: round(v, 4) for k, v in self.median_ms.items()},
            "ours_over_onnxruntime": {
                f"{n} thread{'s' * (n > 1)}, {times.removesuffix('_ms')}":
                    round(self.ratio(n, times), 3)
                for n in (1, 2) for times in ("best_ms", "median_ms")
            },
            "serial_over_streams": round(self.streams_gain, 3),
            "rounds": self.rounds, **self.surroundings,
        }  # fmt: skip


def session(model: Model, within: int, between: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = within
    if between:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = between
    return onnxruntime.InferenceSession(
        str(model.path), options, providers=["CPUExecutionProvider"]
    )


def load(model: Model, inputs: Mapping[str, Any]) -> Any:
    shapes = {name: array.shape for name, array in inputs.items()}
    return ag.load_onnx(model.path, shapes, values=dict(model.fixed))


def check(model: Model, ours: Mapping[str, Any], theirs: Any, inputs: Mapping[str, Any]) -> None:
    """Raise `AssertionError` where a number differs from what it should be."""
    names = [output.name for output in theirs.get_outputs()]
    expected = dict(zip(names, theirs.run(names, {**inputs, **model.fixed}), strict=True))
    runs = {name: exe.run(inputs) for name, exe in ours.items()}
    first = runs["serial, 1 thread"]
    for name, want in expected.items():
        np.testing.assert_allclose(first[name], want, rtol=RTOL, atol=ATOL, err_msg=model.name)
        np.testing.assert_array_equal(runs["streams, 2 threads"][name], first[name])
        np.testing.assert_allclose(
            runs["serial, 2 threads"][name], want, rtol=RTOL, atol=ATOL, err_msg=model.name
        )


def seconds_of(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Wall and processor time of one call after another that fills the cache again."""
    call()
    start, start_cpu = time.perf_counter(), time.thread_time()
    for _ in range(repeats):
        call()
    wall_s, cpu_s = time.perf_counter() - start, time.thread_time() - start_cpu
    return wall_s / repeats, cpu_s / repeats


def interleave(
    calls: Mapping[str, Callable[[], object]], budget_s: float
) -> tuple[dict[str, list[float]], QuietRounds]:
    """Let the candidates take turns, in another order in each round; return seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in (*calls, WALL)}
    quiet = QuietRounds(budget_s=budget_s / 2)
    shuffle = random.Random(1).shuffle
    names, until = list(calls), math.inf
    repeats = dict.fromkeys(calls, 1)
    while len(quiet.shares) < _MOST_ROUNDS:
        shuffle(names)
        taken = {}
        quiet.begin()
        for name in names:
            wall_s, cpu_s = seconds_of(calls[name], repeats[name])
            taken[name] = cpu_s if "1 thread" in name else wall_s
            if name == "serial, 1 thread":
                taken[WALL] = wall_s
            if "2 threads" in name:
                time.sleep(_REST_S)
        if until == math.inf:  # the first round says how often to repeat a short call
            repeats = {n: max(1, min(20, int(_SHORT_S / taken[n]))) for n in calls}
            until = time.monotonic() + budget_s
            continue
        if not quiet.repeat():
            for name, elapsed in taken.items():
                seconds[name].append(elapsed)
        if time.monotonic() > until and len(quiet.shares) >= _FEWEST_ROUNDS:
            break
    return seconds, quiet


def measure_model(model: Model, budget_s: float = _BUDGET_S) -> Row:
    inputs = model.inputs()
    net = load(model, inputs)
    feed = {**inputs, **model.fixed}
    with ExitStack() as stack:
        exes = {
            name: stack.enter_context(net.compile(backend="cpu", **options))
            for name, options in OURS.items()
        }
        sessions = {name: session(model, *threads) for name, threads in THEIRS.items()}
        check(model, exes, sessions["onnxruntime, 1 thread"], inputs)
        calls: dict[str, Callable[[], object]] = {
            name: lambda exe=exe: exe.run(inputs) for name, exe in exes.items()
        }
        calls |= {name: lambda s=s: s.run(None, feed) for name, s in sessions.items()}
        seconds, quiet = interleave(calls, budget_s)
        report = exes["streams, 2 threads"].report(inputs, rounds=3)
        plan = exes["streams, 2 threads"].plan
    return Row(
        model.name, len(plan.steps), len(plan.streams), report.ratio,
        {name: 1e3 * min(times) for name, times in seconds.items()},
        {name: 1e3 * statistics.median(times) for name, times in seconds.items()},
        len(quiet.shares), quiet.summary(),
    )  # fmt: skip


# -- where the time goes -----------------------------------------------------------------------


def kinds_of(exe: ag.Executable) -> dict[int, str]:
    """Step to kind of operator; convolutions by kernel."""
    graph = exe.plan.graph
    names = {}
    for step, placed in enumerate(exe.plan.steps):
        node = graph.nodes[placed.node]
        kind = node.op.kind
        if kind.startswith("Conv"):
            w = graph.blobs[node.reads[1]].spec.shape
            depthwise = node.attrs.get("groups", 1) > 1 and w[1] == 1
            kind += f" {'depthwise ' * depthwise}{'x'.join(map(str, w[2:]))}"
        names[step] = kind
    return names


def where(model: Model, rounds: int = 10) -> dict[str, tuple[int, float, float]]:
    """Return by kind of operator: steps, milliseconds (fastest of each), share of the whole."""
    inputs = model.inputs()
    with load(model, inputs).compile(backend="cpu", mode="serial", blas_threads=1) as exe:
        exe.run(inputs)
        with exe.trace() as timeline:
            for _ in range(rounds):
                exe.run(inputs)
        kinds = kinds_of(exe)
    fastest: dict[int, float] = defaultdict(lambda: math.inf)
    for run in timeline.runs:
        for part in run.slices:
            fastest[part.step] = min(fastest[part.step], part.end_s - part.start_s)
    total_s = sum(fastest.values())
    found: dict[str, tuple[int, float, float]] = {}
    for step, seconds in fastest.items():
        n, ms, share = found.get(kinds[step], (0, 0.0, 0.0))
        found[kinds[step]] = (n + 1, ms + 1e3 * seconds, share + seconds / total_s)
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))


# -- what comes out ----------------------------------------------------------------------------


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def table(rows: list[Row]) -> list[str]:
    titles = ["model", "steps", "work / span", *OURS, *THEIRS, "ours / theirs, 1 thread",
              "ours / theirs, 2 threads", "serial / streams"]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " ---: |" * (len(titles) - 1)]
    for row in rows:
        times = [f"{row.best_ms[name]:.2f}" for name in (*OURS, *THEIRS)]
        cells = [row.name, str(row.n_steps), f"{row.work_over_span:.2f}", *times]
        cells += [f"{row.ratio(1):.2f}", f"{row.ratio(2):.2f}", f"{row.streams_gain:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def summary(rows: list[Row]) -> dict[str, float]:
    return {
        f"geometric_mean_{n}_threads_{times.removesuffix('_ms')}":
            geometric_mean([row.ratio(n, times) for row in rows])
        for n in (1, 2) for times in ("best_ms", "median_ms")
    }  # fmt: skip


def shares(name: str, found: Mapping[str, tuple[int, float, float]]) -> str:
    listed = [
        f"{kind} {100 * share:.0f} % ({n} steps, {ms:.2f} ms)"
        for kind, (n, ms, share) in list(found.items())[:5]
    ]
    return f"- {name}: " + ", ".join(listed)


PAGE = """# Real models against onnxruntime

Written by `python -m benchmarks.models --save`. Milliseconds for one inference of batch 1, the
fastest round of one interleaved run. With one thread it is processor time, with two the clock on
the wall, which other work on the machine lengthens. Outputs agree within rtol 1e-3 and atol 1e-4,
those of serial and streams bit by bit. The last four models have random weights. `ours / theirs`
takes the best mode of each; `serial / streams` is what two streams gain over one on the wall, and
cannot be more than work / span or 2.

Machine: {cores} cores, {processor}, {system}; Python {python}, NumPy {numpy}, onnxruntime
{onnxruntime}. Load average at the end {load}; other processes took {foreign:.0f} % of both cores in
the median round.{verdict}

{table}

Geometric mean of ours / theirs: **{one:.2f}** with one thread, **{two:.2f}** with two (from
medians: {one_median:.2f} and {two_median:.2f}).

Where the time goes with one thread in the models furthest behind:

{worst}
"""


#: Share of the cores taken by others above which times of two threads mean little.
_LOUD = 0.2


def document(rows: list[Row], worst: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    means = summary(rows)
    foreign = statistics.median(r.surroundings["foreign_cpu_median"] for r in rows)
    verdict = (
        " **So the columns of two threads and of streams are those of a crowded machine and decide"
        " nothing; those of one thread stand.**"
    )
    return PAGE.format(
        verdict=verdict if foreign > _LOUD else "",
        **{k: about[k] for k in ("cores", "processor", "system", "python", "numpy", "onnxruntime")},
        load=about["load_average"][0],
        foreign=100 * foreign,
        table="\n".join(table(rows)),
        one=means["geometric_mean_1_threads_best"],
        two=means["geometric_mean_2_threads_best"],
        one_median=means["geometric_mean_1_threads_median"],
        two_median=means["geometric_mean_2_threads_median"],
        worst="\n".join(shares(name, found) for name, found in worst.items()),
    )


def about_machine() -> dict[str, Any]:
    return {
        **machine(), "onnxruntime": importlib.metadata.version("onnxruntime"),
        "load_average": [round(x, 1) for x in os.getloadavg()],
    }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.models", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("names", nargs="*", choices=[[], *MODELS], metavar="NAME", default=[])
    made.add_argument(
        "--export", action="store_true", help="export what is missing, measure nothing"
    )
    made.add_argument("--where", type=int, default=3, help="models of which to say what takes time")
    made.add_argument("--budget", type=float, default=_BUDGET_S, help="seconds for each model")
    made.add_argument("--save", action="store_true", help="write JSON and the page of the docs")
    return made


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.export:
        for model in EXPORTS:
            print(export(model.name).name)
        return
    rows = []
    for name in options.names or MODELS:
        rows.append(measure_model(MODELS[name], options.budget))
        row = rows[-1]
        print(
            f"{name:24} 1 thread {row.ratio(1):.2f}, 2 threads {row.ratio(2):.2f}, "
            f"serial / streams {row.streams_gain:.2f} of {row.work_over_span:.2f}",
            flush=True,
        )
    print("\n".join(["", *table(rows), ""]))
    print(", ".join(f"{name} {value:.3f}" for name, value in summary(rows).items()))
    furthest = sorted(rows, key=lambda row: -row.ratio(1))[: options.where]
    worst = {row.name: where(MODELS[row.name]) for row in furthest}
    print("\n".join(shares(name, found) for name, found in worst.items()))
    if options.save:
        about = about_machine()
        result = {
            "onnxruntime": about["onnxruntime"], "load_average": about["load_average"],
            "summary": {k: round(v, 3) for k, v in summary(rows).items()},
            "models": {row.name: row.to_dict() for row in rows},
            "where": worst,
        }  # fmt: skip
        print(f"written to {save('models', result).name} and {DOCUMENT.name}")
        DOCUMENT.write_text(document(rows, worst, about))


if __name__ == "__main__":
    main()
