"""One workload in one comparison: candidates, checks, interleaved rounds, one row of results."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncnet_gpu as ag
from asyncnet_gpu.backends.cpu.cores import usable_cores

from ..harness import QuietRounds, Timing, interleave, pinned_threads
from ..nets.workload import Workload
from .analysis import TwoAtOnce, measure_parallelism
from .candidate import Candidate
from .check import check_outputs
from .modes import MODES, ours
from .rivals import cpu_rivals

#: The candidate that runs two serial executables at once: a property of the machine.
TWO = "two at once"

#: Seconds until a machine that has rested runs two threads on two cores: measured on a virtual one.
_PRIME_S = 0.1

#: Serial runs by whose times the modes with several streams are planned.
_PROFILED = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What a comparison is run with.

    Attributes
    ----------
    backend
        "cpu" or "cuda".
    real_device
        False on CUDA when the device is software: then only the host's time is taken.
    scale
        Of the number of elements.
    rounds
        Of every candidate; None fits them into `seconds`.
    seconds
        To spend on the rounds of one workload.
    pin
        Bind each thread to one core.
    timelines
        Folder for a picture of one run of each mode, streams as lanes.
    """

    backend: str = "cpu"
    real_device: bool = True
    scale: float = 1.0
    rounds: int | None = None
    seconds: float = 8.0
    seed: int = 0
    rivals: bool = True
    pin: bool = False
    timelines: Path | None = None

    @property
    def prime_s(self) -> float:
        """How long a candidate runs before it is timed."""
        return min(_PRIME_S, self.seconds / 80)

    @property
    def host_only(self) -> bool:
        """Whether device times would mean nothing."""
        return self.backend == "cuda" and not self.real_device


Row = dict[str, Any]


def measure(workload: Workload, options: Options, *, resident: bool = True) -> Row:
    """Check and time a workload in every mode and beside every rival.

    Parameters
    ----------
    resident
        Inputs already lie where the backend computes; else they are NumPy arrays on CUDA.
    """
    with ExitStack() as stack:
        inputs = _inputs(workload, options, resident)
        candidates, exes, absent = _candidates(workload, options, inputs, resident, stack)
        checked = check_outputs(workload, candidates)
        row: Row = {
            "workload": workload.name,
            "data": "resident" if resident else "from the host",
            "sizes": workload.sizes,
            "control": workload.control,
            "checked": checked,
            "absent": absent,
        }
        calls, rests = _calls(candidates, options)
        if options.backend == "cpu":
            row |= _allowed(exes["serial"], workload)
            calls[TWO] = _two_at_once(workload, stack)
        quiet = QuietRounds(budget_s=options.seconds)
        rounds = _fit_rounds(calls, rests, options)
        if options.pin:
            stack.enter_context(pinned_threads())
        timings = interleave(
            calls, rounds=rounds, warm_ups=1, seed=options.seed, rest_s=rests, quiet=quiet,
            prime_s=None if options.host_only else options.prime_s,
        )  # fmt: skip
        row |= {"rounds": rounds, "surroundings": quiet.summary()}
        row["candidates"] = {
            c.name: _numbers(c, calls[c.name], timings, options)
            for c in candidates
            if c.name in timings
        }
        if TWO in timings:
            # Per round two runs in the time of the pair, against one after the other.
            row["ceiling"] = 2 * ratios(timings, "serial", TWO)[1]
            speed_up = row["candidates"]["streams"]["speed_up"]
            row["reached"] = speed_up / min(row["bound"], row["ceiling"])
        if options.timelines is not None and not options.host_only:
            draw_timelines(exes, inputs, workload.name, options.timelines)
        return row


def _inputs(workload: Workload, options: Options, resident: bool) -> Mapping[str, Any]:
    if options.backend != "cuda" or not resident:
        return workload.inputs
    import cupy

    inputs = {k: cupy.asarray(v) for k, v in workload.inputs.items()}
    cupy.cuda.get_current_stream().synchronize()
    return inputs


def draw_timelines(
    exes: Mapping[str, ag.Executable], inputs: Mapping[str, Any], name: str, folder: Path
) -> None:
    """Draw what ran when in one run of each mode: ``NAME MODE.png``."""
    from asyncnet_gpu.demo.pictures import draw_timeline

    folder.mkdir(parents=True, exist_ok=True)
    for mode in ("serial", "streams", "graph"):
        with exes[mode].trace() as timeline:
            exes[mode].run(inputs)
        draw_timeline(timeline, folder / f"{name} {mode}.png")


def _candidates(
    workload: Workload,
    options: Options,
    inputs: Mapping[str, Any],
    resident: bool,
    stack: ExitStack,
) -> tuple[list[Candidate], dict[str, ag.Executable], dict[str, str]]:
    candidates: list[Candidate] = []
    exes: dict[str, ag.Executable] = {}
    absent: dict[str, str] = {}
    measured: Mapping[str, float] | None = None
    for mode in MODES:
        candidate, exes[mode] = ours(
            workload, options.backend, mode, inputs, pin=options.pin, measured=measured
        )
        stack.callback(candidate.close)
        if measured is None and not options.host_only:
            measured = exes[mode].report(inputs, rounds=_PROFILED).node_seconds
        candidates.append(candidate)
    if not options.rivals:
        return candidates, exes, absent
    if options.backend == "cuda":
        from .cupy_rivals import cuda_rivals

        found = cuda_rivals(workload, resident=resident)
    else:
        found = cpu_rivals(workload)
    for rival in found:
        if isinstance(rival, tuple):
            absent[rival[0]] = rival[1]
        else:
            stack.callback(rival.close)
            candidates.append(rival)
    return candidates, exes, absent


def _calls(
    candidates: Sequence[Candidate], options: Options
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Return what is timed: on a software device the issue alone, which the host pays."""
    rests = {c.name: c.rest_s for c in candidates if c.rest_s}
    if not options.host_only:
        return {c.name: c.run for c in candidates}, rests
    return {c.name: HostClock(c.issue) for c in candidates if c.issue is not None}, {}


class HostClock:
    """Issues a job and waits for it, noting only the time of the issue."""

    def __init__(self, issue: Callable[[], Callable[[], object]]) -> None:
        self._issue = issue
        self.seconds: list[float] = []

    def __call__(self) -> None:
        start = time.perf_counter()
        join = self._issue()
        self.seconds.append(time.perf_counter() - start)
        join()


def _allowed(serial: ag.Executable, workload: Workload) -> Row:
    """Measure how parallel the net is."""
    found = measure_parallelism(serial, workload.inputs)
    return {
        "work_ms": found.work_ms, "span_ms": found.span_ms, "gil_share": found.gil_share,
        "bound": min(usable_cores(), found.ratio),
    }  # fmt: skip


def _two_at_once(workload: Workload, stack: ExitStack) -> TwoAtOnce:
    """Return two serial runs at the same time, which share nothing but what they read."""
    runs = []
    for _ in range(2):
        exe = stack.enter_context(workload.net.compile(backend="cpu", mode="serial"))
        runs.append(partial(exe.run, workload.inputs))
    pair = TwoAtOnce(*runs)
    stack.callback(pair.close)
    return pair


def _fit_rounds(
    calls: Mapping[str, Callable[[], object]], rests: Mapping[str, float], options: Options
) -> int:
    """Run every candidate once, and return the rounds asked for or that the time allows."""
    once = interleave(calls, rounds=1, warm_ups=0, rest_s=rests)
    taken = [t.seconds[0] for t in once.values()]
    turn_s = sum(s + max(s, options.prime_s) for s in taken) + sum(rests.values())
    return options.rounds or int(max(7, min(41, options.seconds / turn_s)))


def ratios(timings: Mapping[str, Timing], top: str, bottom: str) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile of top / bottom over the rounds."""
    pairs = zip(timings[top].seconds, timings[bottom].seconds, strict=True)
    values = sorted(a / b for a, b in pairs)
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _numbers(
    candidate: Candidate, call: object, timings: Mapping[str, Timing], options: Options
) -> Row:
    """Return the times of a candidate; `speed_up` is over serial mode, round by round."""
    timing = timings[candidate.name]
    numbers: Row = {"ours": candidate.ours, "note": candidate.note()}
    if isinstance(call, HostClock):
        host = call.seconds[-len(timing.seconds) :]
        return {**numbers, "host_ms": 1e3 * statistics.median(host)}
    low, middle, high = ratios(timings, "serial", candidate.name)
    numbers |= {
        "median_ms": 1e3 * timing.median_s,
        "best_ms": 1e3 * min(timing.seconds),
        "spread": timing.spread if len(timing.seconds) > 1 else 0.0,
        "seconds": [round(s, 7) for s in timing.seconds],
        "speed_up": middle,
        "speed_up_quartiles": [low, high],
    }
    if options.backend == "cuda":
        clock = HostClock(candidate.issue) if candidate.issue is not None else None
        if clock is not None:
            for _ in range(5):
                clock()
            numbers["host_ms"] = 1e3 * statistics.median(clock.seconds)
        if candidate.device_ms is not None:
            numbers["device_ms"] = statistics.median(candidate.device_ms() for _ in range(3))
    return numbers
