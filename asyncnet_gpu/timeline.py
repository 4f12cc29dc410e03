"""What really ran when: the steps of traced runs, and what can be made of them."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from asyncnet_gpu.backends.base import Execution, HostSlice, Slice
from asyncnet_gpu.forking import now_and_after_fork
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import Plan

if TYPE_CHECKING:
    from asyncnet_gpu.report import Report


@dataclass(frozen=True, slots=True)
class TracedRun:
    """One run.

    Attributes
    ----------
    slot
        Which set of buffers it used.
    started_s
        When it began, in seconds on the host's clock.
    slices
        Its steps, on the clock of the run.
    host
        What threads of the host did for it, on the clock of the run.
    """

    slot: int
    started_s: float
    slices: tuple[Slice, ...]
    host: tuple[HostSlice, ...] = ()

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start of the run to the end of its last step."""
        return max((s.end_s for s in self.slices), default=0.0)


@final
class Timeline:
    """Collects traced runs of one plan.

    Attributes
    ----------
    plan
        The plan that ran.
    model
        Rates that the backend believes in.
    runs
        In the order in which they ended.
    """

    def __init__(self, plan: Plan, model: DeviceModel) -> None:
        self.plan = plan
        self.model = model
        self._runs: list[TracedRun] = []
        self._unread: list[tuple[int, Execution]] = []
        now_and_after_fork(self, Timeline._make_lock)

    def _make_lock(self) -> None:
        self._lock = threading.Lock()

    @property
    def runs(self) -> list[TracedRun]:
        """The runs so far; their times are worked out when somebody looks."""
        with self._lock:
            while self._unread:
                self._read(*self._unread.pop(0))
        return self._runs

    def add(self, slot: int, execution: Execution) -> None:
        """Keep the slices of a run that has ended."""
        # Not the execution itself, which holds arrays of the caller's.
        kept = Execution(
            {}, slices=execution.slices, host=execution.host, unread=execution.unread,
            started_s=execution.started_s,
        )  # fmt: skip
        self._unread.append((slot, kept))

    def _read(self, slot: int, execution: Execution) -> None:
        started_s = execution.started_s
        last = next((run for run in reversed(self._runs) if run.slot == slot), None)
        if last is not None:
            # Virtual time can be longer than real time: runs of a slot follow one another.
            started_s = max(started_s, last.started_s + last.elapsed_s)
        slices = tuple(execution.read())
        self._runs.append(TracedRun(slot, started_s, slices, tuple(execution.host)))

    def to_chrome(self) -> dict[str, Any]:
        """Return the runs as Chrome trace events, which Perfetto and chrome://tracing open."""
        from asyncnet_gpu.trace.chrome import chrome_trace

        return chrome_trace(self)

    def to_html(self) -> str:
        """Return a page that shows the runs: one file, no network needed."""
        from asyncnet_gpu.trace.page import timeline_page

        return timeline_page(self)

    def report(self) -> Report:
        """Say how much overlapped, and what limits it; see `Executable.report`."""
        from asyncnet_gpu.report import report_timeline

        return report_timeline(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a page when `path` ends in ``.html``, else Chrome trace JSON."""
        from asyncnet_gpu.trace.chrome import chrome_json

        file = Path(path)
        text = self.to_html() if file.suffix == ".html" else chrome_json(self)
        file.write_text(text, encoding="utf-8")
