"""Every mode of ours as a candidate."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import asyncnet_gpu as ag

from ..harness import pinned_threads
from ..nets.workload import Workload
from .candidate import Candidate, Outputs

MODES = ("serial", "streams", "graph-serial", "graph", "auto")
CONCURRENT = ("streams", "graph")
#: Runs after which `auto` has decided, whatever the number of modes.
_AUTO_RUNS = 100


def ours(
    workload: Workload, backend: str, mode: str, inputs: Mapping[str, Any], *, pin: bool = False,
    measured: Mapping[str, float] | None = None,
) -> tuple[Candidate, ag.Executable]:  # fmt: skip
    """Compile a mode and warm it up: kernels, pools, captured graphs, and the choice of `auto`.

    Parameters
    ----------
    measured
        What the modes with several streams are planned by; `auto` measures for itself.
    """
    known = measured if mode in CONCURRENT else None
    exe = workload.net.compile(backend=backend, mode=mode, measured=known)
    for _ in range(4):
        exe.run(inputs)
    if mode == "auto":
        # All threads of its modes are there by now: it chooses under the conditions of the rounds.
        with pinned_threads() if pin else nullcontext():
            for _ in range(_AUTO_RUNS):
                exe.run(inputs)

    def issue() -> Callable[[], object]:
        return exe.submit(inputs).result

    def run() -> Outputs:
        return exe.run(inputs)

    def note() -> str:
        plan = exe.plan
        text = f"{len(plan.steps)} steps, {len(plan.streams)} streams, {plan.n_waits} waits"
        return f"took {exe.mode}; {exe.why}; {text}" if mode == "auto" else text

    on_device = exe.backend == "cuda"
    candidate = Candidate(
        mode, run, ours=True, issue=issue if on_device else None,
        device_ms=(lambda: _device_ms(exe, inputs)) if on_device else None, note=note,
        close=exe.close,
    )  # fmt: skip
    return candidate, exe


def _device_ms(exe: ag.Executable, inputs: Mapping[str, Any], *, runs: int = 5) -> float:
    """Median time from the first step's start to the last one's end, by timed events."""
    with exe.trace() as timeline:
        for _ in range(runs):
            exe.run(inputs)
    spans = [
        max(s.end_s for s in run.slices) - min(s.start_s for s in run.slices)
        for run in timeline.runs
        if run.slices
    ]
    return 1e3 * statistics.median(spans)
