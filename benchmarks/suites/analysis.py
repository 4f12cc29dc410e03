"""How much overlap a net allows: work, span, and what two copies of it reach on this machine."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncnet_gpu as ag
from asyncnet_gpu.plan.cost import node_cost
from asyncnet_gpu.plan.deps import find_dependencies


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Measured durations of steps along the net's dependencies.

    Attributes
    ----------
    work_ms
        Sum of the steps.
    span_ms
        The longest path: no schedule is faster.
    gil_share
        Share of the work in operators that hold Python's lock.
    """

    work_ms: float
    span_ms: float
    gil_share: float

    @property
    def ratio(self) -> float:
        """Work over span: speed-up on as many cores as one likes."""
        return self.work_ms / self.span_ms if self.span_ms else 1.0


def measure_parallelism(
    exe: ag.Executable, inputs: Mapping[str, Any], *, runs: int = 5
) -> Parallelism:
    """Trace a serial executable; the duration of a step is its median over the runs."""
    plan = exe.plan
    with exe.trace() as timeline:
        for _ in range(runs):
            exe.run(inputs)
    samples: dict[int, list[float]] = {}
    for run in timeline.runs:
        for part in run.slices:
            samples.setdefault(part.step, []).append(part.end_s - part.start_s)
    node_ms = [0.0] * len(plan.graph.nodes)
    for step, seconds in samples.items():
        node_ms[plan.steps[step].node] = 1e3 * statistics.median(seconds)
    ends: list[float] = []
    for node, before in enumerate(find_dependencies(plan.graph)):
        ends.append(node_ms[node] + max((ends[p] for p in before), default=0.0))
    work = sum(node_ms)
    held = sum(node_ms[n.id] for n in plan.graph.nodes if node_cost(plan.graph, n).gil)
    return Parallelism(work, max(ends, default=0.0), held / work if work else 0.0)


class TwoAtOnce:
    """Runs two serial executables at the same time: the most that two threads can get.

    Each has all its data to itself and never waits for the other, so what is missing to twice the
    rate is memory bandwidth, cache or Python's lock: nothing that a schedule could mend.
    """

    def __init__(self, first: Callable[[], object], second: Callable[[], object]) -> None:
        self._first, self._second = first, second
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._open = True
        self._thread = threading.Thread(target=self._loop, name="bench:second", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while True:
            self._go.acquire()
            if not self._open:
                return
            try:
                self._second()
            finally:
                self._done.release()

    def __call__(self) -> dict[str, Any]:
        self._go.release()
        self._first()
        if not self._done.acquire(timeout=600):
            raise TimeoutError("[bench] the second of two runs did not end within 600 s")
        return {}

    def close(self) -> None:
        """End the thread."""
        self._open = False
        self._go.release()
        self._thread.join(600)
