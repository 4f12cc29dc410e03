"""Seconds of the steps of one run, and what may be read off them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import final

from asyncnet_gpu.backends.base import HostSlice, Slice
from asyncnet_gpu.plan.cost import DeviceModel, node_cost
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.timeline import TracedRun
from asyncnet_gpu.trace.path import Link

#: Steps shorter than this on the CPU are mostly Python: it holds its lock for them.
_MOSTLY_PYTHON_S = 20e-6
#: Operators that call a function of the user's, which may hold Python's lock.
_USER_CALLS = frozenset({"call", "kernel"})


@final
class _Busy:
    """Spans of one stream, which do not overlap: how much of them lies in another span."""

    def __init__(self, parts: Sequence[Slice]) -> None:
        ordered = sorted(parts, key=lambda part: part.start_s)
        self._starts = [part.start_s for part in ordered]
        self._ends = [part.end_s for part in ordered]
        self._sums = list(accumulate((p.end_s - p.start_s for p in ordered), initial=0.0))

    def seconds(self, start_s: float, end_s: float) -> float:
        """Return the seconds of the spans inside [start_s, end_s]; O(log n)."""
        return max(0.0, self._before(end_s) - self._before(start_s))

    def _before(self, at_s: float) -> float:
        n = bisect_right(self._starts, at_s)
        if n == 0:
            return 0.0
        return self._sums[n] - max(0.0, self._ends[n - 1] - at_s)


@final
class Times:
    """Seconds of the steps of one run: as they took, alone, and on a core."""

    def __init__(
        self, plan: Plan, model: DeviceModel, run: TracedRun, alone: Mapping[int, float] | None,
        untraced_s: float | None = None,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.model = model
        self.elapsed_s = run.elapsed_s
        #: What tracing itself took: the host's time, since it is the host that records.
        self.tracing_s = 0.0 if untraced_s is None else max(0.0, run.elapsed_s - untraced_s)
        self.on_host = plan.device_kind == "cpu"
        #: Whether runs that nobody traces are replays of a recorded graph.
        self.replays = plan.device_kind == "cuda" and plan.mode.startswith("graph")
        self.took_s = [0.0] * len(plan.steps)
        self._slices = {part.step: part for part in run.slices}
        for part in run.slices:
            self.took_s[part.step] = part.end_s - part.start_s
        self._cpu_s = {s.step: s.cpu_s for s in run.host if _ran(s)}
        self.alone_s = [self._alone(i, alone) for i in range(len(plan.steps))]
        self.work_s = sum(self.alone_s)
        self._python = self._in_python()
        devices = len({node.device for node in plan.graph.nodes}) or 1
        self.lanes = model.lanes * (1 if self.on_host else devices)

    def _alone(self, step: int, alone: Mapping[int, float] | None) -> float:
        took_s = self.took_s[step]
        if alone is not None and len(self.plan.streams) > 1:
            return min(took_s, alone.get(self.plan.steps[step].node, took_s))
        if len(self.plan.streams) > 1 and self.holds_gil(step):
            return min(took_s, self._cpu_s.get(step) or took_s)
        return took_s

    def _in_python(self) -> dict[int, _Busy]:
        """Return for each stream when its steps were in Python."""
        found: dict[int, list[Slice]] = {}
        for step, part in self._slices.items():
            if self.holds_gil(step) or self.alone_s[step] < _MOSTLY_PYTHON_S:
                found.setdefault(self.plan.steps[step].stream, []).append(part)
        return {stream: _Busy(parts) for stream, parts in found.items()}

    def holds_gil(self, step: int) -> bool:
        """Whether the step works under Python's lock, as far as its operator says."""
        node = self.plan.node_of(self.plan.steps[step])
        in_python = node.op.name in _USER_CALLS or node_cost(self.plan.graph, node).gil
        return self.on_host and in_python

    def locked_out_s(self, link: Link) -> float:
        """Part of the gap before a step in which a step of another thread held Python's lock."""
        end_s = self._slices[link.step].start_s
        start_s = end_s - link.handoff_s
        return min(link.handoff_s, self._held_s(start_s, end_s, but=link.step))

    def waits_for_lock(self, step: int) -> bool:
        """Whether what the step took longer went to waiting for Python's lock."""
        slower_s, part = self.slower_s(step), self._slices[step]
        if not self.on_host or self.waited_s(step) <= 0.5 * slower_s:
            return False
        if self.holds_gil(step):
            return True
        # A step of microseconds is mostly Python; but somebody else must have had the lock.
        held_s = self._held_s(part.start_s, part.end_s, but=step)
        return self.alone_s[step] < _MOSTLY_PYTHON_S and held_s > 0.5 * slower_s

    def _held_s(self, start_s: float, end_s: float, *, but: int) -> float:
        """Seconds of a span in which steps of other streams worked in Python."""
        own = self.plan.steps[but].stream
        return sum(
            busy.seconds(start_s, end_s) for stream, busy in self._python.items() if stream != own
        )

    def waited_s(self, step: int) -> float:
        """Seconds in which the thread of the step was not on a core."""
        cpu_s = self._cpu_s.get(step)
        return 0.0 if cpu_s is None else max(0.0, self.took_s[step] - cpu_s)

    def slower_s(self, step: int) -> float:
        """Seconds that the step took longer than alone."""
        return max(0.0, self.took_s[step] - self.alone_s[step])

    def memory_bound(self, step: int) -> bool:
        """Whether moving the bytes takes longer than the arithmetic, by the operator's estimate."""
        cost = node_cost(self.plan.graph, self.plan.node_of(self.plan.steps[step]))
        return cost.bytes / self.model.bytes_per_s > cost.flops / self.model.flops_per_s

    def is_copy(self, step: int) -> bool:
        """Whether the step is on a copy engine's stream."""
        return self.plan.streams[self.plan.steps[step].stream].kind == "copy"

    def node_seconds(self) -> list[float]:
        """Return the times alone by node."""
        seconds = [0.0] * len(self.plan.graph.nodes)
        for step, alone_s in zip(self.plan.steps, self.alone_s, strict=True):
            seconds[step.node] = alone_s
        return seconds


def _ran(part: HostSlice) -> bool:
    return part.what == "run" and part.cpu_s is not None
