"""One way of doing a workload's job that takes part in a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Outputs = Mapping[str, Any]


def nothing() -> None:
    """Default of what there is to close."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mode of ours, or a rival.

    Attributes
    ----------
    run
        Does the job and waits for its end, on the device too; returns outputs by name.
    ours
        Must give the same bits as all others of ours; rivals must come close.
    issue
        Starts the job and returns a function that waits for it: what the host spends. None where
        the host does the work itself.
    device_ms
        Does the job once and returns its time on the device by timed events, all streams joined
        before the last one.
    rest_s
        To let pass afterwards: its library leaves threads spinning.
    note
        For instance what `auto` chose.
    """

    name: str
    run: Callable[[], Outputs]
    ours: bool = False
    issue: Callable[[], Callable[[], object]] | None = None
    device_ms: Callable[[], float] | None = None
    rest_s: float = 0.0
    note: Callable[[], str] = field(default=lambda: "")
    close: Callable[[], None] = nothing


class NotHereError(Exception):
    """A rival cannot take part; the message says why."""
