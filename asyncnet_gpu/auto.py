"""`mode="auto"`: run each mode that applies a few times on real inputs and keep the fastest.

All modes of a net give the same bits, so the runs that measure are ordinary runs. Modes take turns,
so that drift of the machine hits all alike. Ties go to the simpler mode: an overlap that cannot be
measured is not worth its threads and buffers.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

_WARM_UPS = 2
_TIMED = 7
#: A mode must beat a simpler one by this factor.
_MARGIN = 0.98


@final
class Chooser:
    """Whose turn it is, what was measured, and what was chosen.

    Parameters
    ----------
    modes
        Candidates, simplest first. With a single one the choice is made.
    why
        Reason for the choice if there is only one, or for starting with `first`.
    first
        The candidate that the simulator believes in; used where nothing was measured.
    """

    def __init__(self, modes: Sequence[str], why: str, first: str | None = None) -> None:
        self.modes = tuple(modes)
        self.choice = self.modes[0] if first is None else first
        self.why = why
        self.decided = len(self.modes) == 1
        self.seconds: dict[str, list[float]] = {mode: [] for mode in self.modes}
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[str]:
        """Time one run of the mode whose turn it is; one at a time, failed runs do not count."""
        with self._lock:
            if self.decided:
                yield self.choice
                return
            mode = min(self.modes, key=lambda m: len(self.seconds[m]))
            start = time.perf_counter()
            yield mode
            self.seconds[mode].append(time.perf_counter() - start)
            if min(map(len, self.seconds.values())) >= _WARM_UPS + _TIMED:
                self._decide()

    def _decide(self) -> None:
        medians = {m: statistics.median(s[_WARM_UPS:]) for m, s in self.seconds.items()}
        best = self.modes[0]
        for mode in self.modes[1:]:
            if medians[mode] < _MARGIN * medians[best]:
                best = mode
        times = ", ".join(f"{m} {1e3 * t:.3f} ms" for m, t in medians.items())
        self.choice = best
        self.why = f"measured, median of {_TIMED} runs in turn: {times}"
        self.decided = True

    def settle(self, reason: str) -> None:
        """Stop measuring and keep the candidate believed in."""
        with self._lock:
            if not self.decided:
                self.why = f"{self.why}; not measured: {reason}"
                self.decided = True
