"""Where the time of a run went, by cause, and what to do about each.

Along the critical path: what the dependencies alone would take, what the order of streams adds, how
much slower steps were than alone, and the gaps between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.report.times import Times
from asyncnet_gpu.trace.path import Link

DEPENDENCY = "dependency"
FULL = "one kernel fills the device"
LAUNCH = "host launch rate"
COPY = "copy engine"
HANDOFF = "thread hand-off"
GIL = "GIL-bound operator"
STREAMS = "too few streams"
BANDWIDTH = "memory bandwidth"
NONE = "none"

#: A loss below this share of the run is not worth a line.
_WORTH_NAMING = 0.05


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that keeps steps from overlapping.

    Attributes
    ----------
    kind
        One of the constants of this module.
    lost_s
        Seconds of the run that it cost.
    evidence
        What was seen.
    remedy
        What to do.
    """

    kind: str
    lost_s: float
    evidence: str
    remedy: str


def longest_path(before: Sequence[Sequence[int]], seconds: Sequence[float]) -> float:
    """Return the length of the longest path; predecessors have smaller indices."""
    ends: list[float] = []
    for index, own_s in enumerate(seconds):
        ends.append(own_s + max((ends[other] for other in before[index]), default=0.0))
    return max(ends, default=0.0)


def causes_of(times: Times, path: Sequence[Link], span_s: float) -> tuple[Cause, ...]:
    """Divide the run up.

    Parameters
    ----------
    path
        The critical path of the run.
    span_s
        Longest chain of dependencies, in times alone.

    Returns
    -------
    The greatest loss first; one of kind "none" when nothing is worth naming.
    """
    ideal_s = times.work_s / times.lanes
    order_s = sum(times.alone_s[link.step] for link in path)
    copies = _copies(times, path)
    copies_s = 0.0 if copies is None else copies.lost_s  # not to be counted twice
    found = [
        _dependency(times, span_s, max(0.0, span_s - ideal_s - copies_s)),
        _order(times, path, max(0.0, order_s - max(span_s, ideal_s))),
        copies,
        *_slower(times, path),
        *_gaps(times, path),
    ]
    least_s = _WORTH_NAMING * times.elapsed_s
    named = [c for c in _merged([c for c in found if c is not None]) if c.lost_s > least_s]
    if not named:
        return (_nothing(times, span_s),)
    return tuple(sorted(named, key=lambda cause: -cause.lost_s))


def _merged(causes: Sequence[Cause]) -> list[Cause]:
    """Add up what has the same cause; the greater part speaks for both."""
    merged: dict[str, Cause] = {}
    for cause in sorted(causes, key=lambda c: -c.lost_s):
        first = merged.get(cause.kind)
        merged[cause.kind] = (
            cause if first is None else replace(first, lost_s=first.lost_s + cause.lost_s)
        )
    return list(merged.values())


def _nothing(times: Times, span_s: float) -> Cause:
    possible = max(1.0, min(times.work_s / span_s if span_s else 1.0, times.lanes))
    achieved = times.work_s / times.elapsed_s if times.elapsed_s else 1.0
    return Cause(
        NONE, 0.0, f"{achieved:.2f} of {possible:.2f} possible steps at a time",
        "Nothing: it overlaps as far as the net and the device allow.",
    )  # fmt: skip


def _dependency(times: Times, span_s: float, lost_s: float) -> Cause:
    ratio = times.work_s / span_s if span_s else 1.0
    return Cause(
        DEPENDENCY, lost_s,
        f"work / span is {ratio:.2f}: each step waits for what the one before it made",
        "Split the work into independent branches, drop after= and barriers that are not needed, "
        "or run several requests at a time (slots=, exe.submit).",
    )  # fmt: skip


# -- the order that streams add ----------------------------------------------------------------


def _order(times: Times, path: Sequence[Link], lost_s: float) -> Cause | None:
    """Steps of one stream come after one another also where no dependency asks for it."""
    plan = times.plan
    n_compute = sum(stream.kind == "compute" for stream in plan.streams)
    together = _kept_together(times, lost_s)
    if together is not None:
        return together
    waits = [link for link in path if link.by == "stream"]
    if waits and sum(times.is_copy(link.step) for link in waits) > len(waits) / 2:
        return None  # told as copies
    if n_compute >= times.lanes:
        remedy = f"There are {times.lanes} lanes, all in use: only a larger device helps."
    elif plan.mode in ("serial", "graph-serial"):
        remedy = 'Compile with mode="streams", "graph" or "auto".'
    else:
        remedy = 'Raise max_streams=, or take allocator="exact".'
    return Cause(
        STREAMS, lost_s,
        f"{n_compute} compute stream{'s' * (n_compute != 1)} (mode {plan.mode}): independent steps "
        "stand in line",
        remedy,
    )  # fmt: skip


#: What would have to be free for the planner to take several streams, most telling first.
_PRICES: tuple[tuple[str, dict[str, Any]], ...] = (
    (GIL, {"threads": False}),
    (HANDOFF, {"handoff_s": 0.0}),
    (LAUNCH, {"launch_s": 0.0, "replay_launch_s": 0.0}),
    (HANDOFF, {"handoff_s": 0.0, "launch_s": 0.0, "replay_launch_s": 0.0}),
)


def _kept_together(times: Times, lost_s: float) -> Cause | None:
    """Say why the planner left everything on one stream, when that was its own choice."""
    plan, model = times.plan, times.model
    if plan.allocator != "cost" or len(plan.streams) > 1 or _n_streams(plan, model) > 1:
        return None
    step_us = 1e6 * times.work_s / max(1, len(plan.steps))
    larger = (
        "Make steps larger (bigger batches, fused operators); overlap whole runs instead "
        "(slots=, exe.submit)."
    )
    words = {
        GIL: ("steps that hold Python's lock cannot overlap", _SLOWER[GIL][1]),
        HANDOFF: (
            f"a hand-over costs about {1e6 * model.handoff_s:.0f} us, a step {step_us:.1f} us",
            larger,
        ),
        LAUNCH: (
            f"the host needs {1e6 * model.launch_s:.1f} us to issue a step of {step_us:.1f} us",
            larger,
        ),
    }
    enough = replace(model, lanes=max(2, model.lanes))
    for kind, prices in _PRICES:
        if _n_streams(plan, replace(enough, **prices)) > 1:
            seen, remedy = words[kind]
            return Cause(kind, lost_s, f"the plan keeps one stream: {seen}", remedy)
    return None


def _n_streams(plan: Plan, model: DeviceModel) -> int:
    """Return how many streams the planner takes with these prices."""
    made = make_plan(
        plan.graph, device_kind=plan.device_kind, model=model, alignment=plan.alignment
    )
    return len(made.streams)


def _copies(times: Times, path: Sequence[Link]) -> Cause | None:
    copies_s = sum(times.took_s[link.step] for link in path if times.is_copy(link.step))
    if copies_s < 0.5 * times.elapsed_s:
        return None
    n_copies = sum(map(times.is_copy, range(len(times.plan.steps))))
    return Cause(
        COPY, copies_s,
        f"{copies_s / times.elapsed_s:.0%} of the run is copying between devices ({n_copies} "
        "copies)",
        "Keep what belongs together on one device, copy earlier or smaller types, and have "
        "several runs in flight (slots=) so that copies lie under work.",
    )  # fmt: skip


# -- steps that are slower beside others ---------------------------------------------------------

_SLOWER = {
    GIL: (
        "hold Python's lock while they work",
        (
            "Use operators of the library or functions that release the lock (NumPy on large "
            "arrays, Numba nogil, Cython), or several processes."
        ),
    ),
    BANDWIDTH: (
        "move memory and share its bandwidth",
        (
            "Fuse elementwise steps, use smaller types, keep blobs small enough for the cache; "
            "more streams do not help."
        ),
    ),
    FULL: (
        "need the whole device, which others use too",
        (
            "A smaller launch shape for steps that run beside others; otherwise the device is "
            "simply in full use."
        ),
    ),
}


#: The device is full, where the device is the CPU.
_CORES = (
    "find the cores taken, by threads of BLAS or by other processes",
    (
        "Look again on an idle machine, with blas_threads=1; otherwise the cores are simply in "
        "full use."
    ),
)


def _slower(times: Times, path: Sequence[Link]) -> list[Cause]:
    lost: dict[str, float] = dict.fromkeys(_SLOWER, 0.0)
    steps: dict[str, list[int]] = {kind: [] for kind in _SLOWER}
    for link in path:
        slower_s = times.slower_s(link.step)
        if slower_s:
            kind = _why_slower(times, link.step)
            lost[kind] += slower_s
            steps[kind].append(link.step)
    made = []
    for kind, lost_s in lost.items():
        if not lost_s:
            continue
        took_s = sum(times.took_s[i] for i in steps[kind])
        worst = max(steps[kind], key=times.slower_s)
        name = times.plan.node_of(times.plan.steps[worst]).name
        what, remedy = _CORES if kind == FULL and times.on_host else _SLOWER[kind]
        evidence = (
            f"{len(steps[kind])} steps on the critical path take {took_s / (took_s - lost_s):.2f} "
            f"times as long as alone (most of all {name!r}): they {what}"
        )
        made.append(Cause(kind, lost_s, evidence, remedy))
    return made


def _why_slower(times: Times, step: int) -> str:
    # Who waits for Python's lock or for a core is not on one meanwhile; who waits for memory is.
    if times.waits_for_lock(step):
        return GIL
    if times.waited_s(step) > 0.5 * times.slower_s(step):
        return FULL
    return BANDWIDTH if times.memory_bound(step) else FULL


# -- gaps ------------------------------------------------------------------------------------------


def _gaps(times: Times, path: Sequence[Link]) -> list[Cause]:
    host_s = max(0.0, sum(link.host_s for link in path) - times.tracing_s)
    locked_s = sum(times.locked_out_s(link) for link in path if link.handoff_s > 0)
    handoff_s = sum(link.handoff_s for link in path) - locked_s
    n_handoffs = max(1, sum(link.handoff_s > 0 for link in path))
    launch_us, handoff_us = 1e6 * host_s / max(1, len(path)), 1e6 * handoff_s / n_handoffs
    if times.on_host:
        launch = (
            f"{launch_us:.1f} us of Python between two steps",
            "Fewer, larger steps: the interpreter needs its time for each.",
        )
        handoff = (
            f"{n_handoffs} times {handoff_us:.0f} us to wake another thread",
            (
                "Fewer, larger steps; fewer streams (max_streams=); allocator='cost' keeps small "
                "steps together."
            ),
        )
    else:
        launch = (
            f"the device waits for the host: {launch_us:.1f} us for each step on the path",
            "mode='graph' replays all launches at once; fewer, larger steps.",
        )
        handoff = (
            f"{n_handoffs} times {handoff_us:.1f} us to pass an event to another stream",
            "mode='graph' makes events cheaper; fewer streams need fewer of them.",
        )
    if times.replays:
        host_s = 0.0  # only the traced run was issued step by step
    return [
        Cause(LAUNCH, host_s, *launch),
        Cause(HANDOFF, handoff_s, *handoff),
        Cause(
            GIL,
            locked_s,
            "threads are awake and wait for Python's lock, which a step of another stream holds",
            _SLOWER[GIL][1],
        ),
        Cause(
            FULL,
            sum(link.queued_s for link in path),
            f"steps were ready and found no free {'core' if times.on_host else 'room'}",
            (_CORES if times.on_host else _SLOWER[FULL])[1],
        ),
    ]
