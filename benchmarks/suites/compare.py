"""Two results side by side: what got slower by more than noise.

A time is compared relative to a yardstick that both runs share, a rival whose code did not change
(plain NumPy or CuPy): a busier machine slows both. Without a yardstick times are compared as they
are. Noise is three standard errors of both medians, and never below `FLOOR`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .runner import Document

#: Smallest slowdown worth a word.
FLOOR = 0.05
YARDSTICKS = ("numpy", "cupy")


@dataclass(frozen=True, slots=True)
class Change:
    """One candidate in both runs.

    Attributes
    ----------
    ratio
        New over old, relative to the yardstick: above 1 is slower.
    noise
        Largest ratio minus one that chance explains.
    """

    name: str
    ratio: float
    noise: float

    @property
    def regressed(self) -> bool:
        """Whether it is slower than noise explains."""
        return self.ratio > 1 + self.noise

    @property
    def improved(self) -> bool:
        """Whether it is faster than noise explains."""
        return self.ratio < 1 / (1 + self.noise)


def compare(old: Document, new: Document) -> list[Change]:
    """Return what both documents have, ours only, worst first."""
    return sorted(_changes(old, new), key=lambda change: -change.ratio)


def _changes(old: Document, new: Document) -> Iterator[Change]:
    for suite, found in new["suites"].items():
        before = old["suites"].get(suite)
        if before is None:
            continue
        if suite == "overhead":
            yield from _overhead(before["rows"], found["rows"])
        else:
            yield from _workloads(suite, before["rows"], found["rows"])


def _workloads(suite: str, before: Any, after: Any) -> Iterator[Change]:
    known = {_key(row): row for row in before if "candidates" in row}
    for row in after:
        old = known.get(_key(row)) if "candidates" in row else None
        if old is None or row["sizes"] != old["sizes"]:
            continue
        yardstick = next((y for y in YARDSTICKS if _timed(old, y) and _timed(row, y)), None)
        for name, numbers in row["candidates"].items():
            if not (numbers["ours"] and _timed(old, name) and _timed(row, name)):
                continue
            one, two = _times(old, name, yardstick), _times(row, name, yardstick)
            ratio = statistics.median(two) / statistics.median(one)
            noise = 3 * math.hypot(_standard_error(one), _standard_error(two))
            yield Change(f"{suite}: {row['workload']}, {name}", ratio, max(FLOOR, noise))


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["workload"], row["data"]


def _timed(row: Mapping[str, Any], name: str) -> bool:
    return "seconds" in row["candidates"].get(name, {})


def _times(row: Mapping[str, Any], name: str, yardstick: str | None) -> list[float]:
    """Seconds round by round, over those of the yardstick in the same round."""
    seconds = row["candidates"][name]["seconds"]
    if yardstick is None:
        return list(seconds)
    return [a / b for a, b in zip(seconds, row["candidates"][yardstick]["seconds"], strict=True)]


def _standard_error(values: list[float]) -> float:
    """Relative standard error of the median, from the quartiles (robust against outliers)."""
    if len(values) < 4:
        return 1.0
    low, middle, high = statistics.quantiles(values, n=4)
    return 1.2533 * (high - low) / 1.349 / math.sqrt(len(values)) / middle


def _overhead(before: Any, after: Any) -> Iterator[Change]:
    loops = [next((r["us_per_step"] for r in rows if r["system"] == "numpy loop, out="), 1.0)
             for rows in (before, after)]  # fmt: skip
    known = {row["system"]: row for row in before}
    for row in after:
        old = known.get(row["system"])
        if old is None or not row["system"].startswith("asyncnet_gpu"):
            continue
        ratio = (row["us_per_step"] / loops[1]) / (old["us_per_step"] / loops[0])
        noise = max(FLOOR, row["spread"] + old["spread"])
        yield Change(f"overhead: {row['system']}", ratio, noise)
