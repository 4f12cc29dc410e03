"""Segments: launches in a row on one stream, issued by one call as a short graph.

A bound launch costs the host about a microsecond, nearly all of it the driver's. Where a stream has
many launches of ours between two events, a graph of them is launched instead: the same kernels in
the same order with the same arguments. Left out is whatever changes between runs (a launch that
reads an input at the caller's address) or belongs to the user (so that a fault keeps its own step).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Sequence
from functools import partial

from cupy.cuda import runtime

from asyncnet_gpu.backends.cuda.context import Stream
from asyncnet_gpu.backends.cuda.device import OnDevice
from asyncnet_gpu.backends.cuda.faults import driver_errors
from asyncnet_gpu.backends.cuda.issue import Call, IssueList, Kind, Segment
from asyncnet_gpu.backends.cuda.resources import Resources

_log = logging.getLogger("asyncnet_gpu")

#: Fewer launches are about as fast one by one.
SHORTEST = 8
#: What is cancelled stops after the segment under way.
LONGEST = 64


def find_runs(issue: IssueList, fixed: Collection[tuple[int, int]]) -> list[list[int]]:
    """Return the entries of each segment: launches in `fixed` (step, number) on one stream.

    Entries of other streams may stand between them. Moving a launch in front of those changes
    nothing on the device, where only the order within a stream and the events count.
    """
    open_runs: dict[int, list[int]] = {}
    found: list[list[int]] = []
    for position, entry in enumerate(issue.meaning):
        if entry.kind is Kind.DEVICE:
            continue  # belongs to the host's thread, not to a stream
        stream = issue.plan.steps[entry.step].stream
        number = position - issue.position[entry.step]
        if entry.kind is not Kind.RUN or (entry.step, number) not in fixed:
            open_runs.pop(stream, None)  # what is ordered after this entry must stay behind it
            continue
        run = open_runs.get(stream)
        if run is None or len(run) == LONGEST:
            run = open_runs[stream] = []
            found.append(run)
        run.append(position)
    return [run for run in found if len(run) >= SHORTEST]


def make_segments(
    issue: IssueList, fixed: Collection[tuple[int, int]], streams: Sequence[Stream],
    resources: Resources,
) -> list[Segment]:  # fmt: skip
    """Capture the segments of a list; without those that the driver refuses."""
    made: list[Segment] = []
    for run in find_runs(issue, fixed):
        stream = streams[issue.plan.steps[issue.meaning[run[0]].step].stream]
        try:
            graph = _captured([issue.calls[position] for position in run], stream)
            call = partial(runtime.graphLaunch, resources.instantiated(graph), stream.ptr)
        except driver_errors() as error:
            _log.info("[cuda] %s: launches are issued one by one (%s)", resources.where, error)
            break
        made.append(Segment(tuple(run), call))
    return made


def _captured(calls: Sequence[Call], stream: Stream) -> int:
    with OnDevice(stream.device):
        runtime.streamBeginCapture(stream.ptr, runtime.streamCaptureModeRelaxed)
        try:
            for call in calls:
                call()
        except BaseException:
            with contextlib.suppress(*driver_errors()):
                runtime.graphDestroy(runtime.streamEndCapture(stream.ptr))
            raise
        return int(runtime.streamEndCapture(stream.ptr))
