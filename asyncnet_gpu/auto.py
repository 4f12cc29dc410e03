"""`mode="auto"`: run each mode that applies a few times on real inputs and keep the fastest.

All modes of a net give the same bits, so the runs that measure are ordinary runs. Modes take turns,
and are compared round by round: a neighbour who comes or goes meanwhile spoils one round and not
the comparison. Ties go to the simpler mode: an overlap that cannot be measured is not worth its
threads and buffers. Before that some serial runs may be profiled, so that the other modes can be
planned by what their steps take (`profiling`).

Only one run at a time measures. Another thread that runs meanwhile does not wait for it: it takes
the mode believed in, and the sample that it may have disturbed is dropped. Where runs update a
state they must follow one another anyway, also across modes, and so take turns.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

from asyncnet_gpu.errors import DeadlineExceeded, message
from asyncnet_gpu.forking import now_and_after_fork

#: Runs of each mode: to warm up, and measured at least and at most. In between it goes on until
#: the measured ones have taken so long: clocks rise and cores wake up within a tenth of a second,
#: and what a mode takes before that says little about what it will take.
_WARM_UPS = 2
_TIMED, _MOST_TIMED = 7, 40
_LONG_ENOUGH_S = 0.12
#: A mode must beat a simpler one by this factor.
_MARGIN = 0.98
#: Samples that other runs may spoil before it is clear that it will go on like this.
_MOST_SPOILT = 30


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
    exclusive
        Whether runs must not overlap: they update a state.
    timeout_s
        Longest that a run waits for its turn then.
    to_profile
        Runs to be profiled before modes are compared.
    """

    def __init__(
        self, modes: Sequence[str], why: str, first: str | None = None, *,
        exclusive: bool = False, timeout_s: float = 600.0, to_profile: int = 0,
    ) -> None:  # fmt: skip
        self.modes = tuple(modes)
        self.choice = self.modes[0] if first is None else first
        self.why = why
        self.to_profile = to_profile
        self.decided = len(self.modes) == 1 and not to_profile
        self.seconds: dict[str, list[float]] = {mode: [] for mode in self.modes}
        self._exclusive = exclusive
        self._timeout_s = timeout_s
        self._visits = 0  # of runs beside the one that measures
        self._spoilt = 0
        now_and_after_fork(self, Chooser._make_locks)

    def _make_locks(self) -> None:
        self._turn = threading.Lock()
        #: Held while candidates, choice or what carries them out is exchanged; after the turn.
        self.lock = threading.Lock()

    @contextmanager
    def profile(self, timeout_s: float | None = None) -> Iterator[bool]:
        """Hold the turn for a run to be profiled; a failed one does not count.

        Yields
        ------
        Whether there is one to be made and nobody else has the turn.
        """
        turn = self._take_turn(timeout_s)
        if turn is None:
            yield False
            return
        try:
            own = self.to_profile > 0 and not self.decided
            yield own
            if own:
                self.to_profile -= 1
                with self.lock:
                    if not self.to_profile and len(self.modes) == 1:
                        self._keep("by measured times no two steps are worth overlapping")
        finally:
            turn.release()

    def replace(self, modes: Sequence[str], why: str) -> None:
        """Take other candidates, before any was measured; the caller has the turn and `lock`."""
        self.modes = tuple(modes)
        self.seconds = {mode: [] for mode in self.modes}
        self.choice = self.choice if self.choice in self.modes else self.modes[0]
        self.why = why

    @contextmanager
    def turn(self, timeout_s: float | None = None, *, measures: bool = True) -> Iterator[str]:
        """Time one run of the mode whose turn it is; one at a time, failed runs do not count.

        Parameters
        ----------
        timeout_s
            Longest to wait for the turn, if less than the chooser's own.
        measures
            False for a run that says nothing about its mode: it takes the one believed in.
        """
        turn = self._take_turn(timeout_s)
        if turn is None:
            self._visits += 1
            yield self.choice
            return
        try:
            if self.decided or not measures:
                yield self.choice
                return
            mode = min(self.modes, key=lambda m: len(self.seconds[m]))
            visits = self._visits
            start = time.perf_counter()
            yield mode
            seconds = time.perf_counter() - start
            with self.lock:
                self._note(mode, seconds, disturbed=visits != self._visits)
        finally:
            turn.release()

    def _take_turn(self, timeout_s: float | None = None) -> threading.Lock | None:
        """Return what is to be released: a step that forks comes back in a child with another."""
        turn = self._turn
        if not self._exclusive:
            return turn if turn.acquire(blocking=False) else None
        limit_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        if not turn.acquire(timeout=limit_s):
            raise DeadlineExceeded(
                message(
                    "auto", "a run that updates a state does not end",
                    expected=f"within {limit_s} s", got="still under way",
                    remedy='Pass mode="serial" or "streams", and timeout_s to run.',
                )
            )  # fmt: skip
        return turn

    def _note(self, mode: str, seconds: float, *, disturbed: bool) -> None:
        if self.decided:
            return
        if disturbed:
            self._spoilt += 1
            if self._spoilt >= _MOST_SPOILT:
                self._keep("several threads run at a time")
            return
        self.seconds[mode].append(seconds)
        timed = min(map(len, self.seconds.values())) - _WARM_UPS
        took_s = sum(map(sum, self.seconds.values()))
        if timed >= _TIMED and (took_s >= _LONG_ENOUGH_S or timed >= _MOST_TIMED):
            self._decide(max(_TIMED, timed // 2))

    def _decide(self, n: int) -> None:
        """Compare the last `n` runs of each mode."""
        seconds = {mode: timed[-n:] for mode, timed in self.seconds.items()}
        best = self.modes[0]
        texts = [f"{best} {1e3 * statistics.median(seconds[best]):.3f} ms"]
        for mode in self.modes[1:]:
            ratio = paired_ratio(seconds[mode], seconds[best])
            time_ms = 1e3 * statistics.median(seconds[mode])
            texts.append(f"{mode} {time_ms:.3f} ms ({ratio:.2f} of {best})")
            if ratio < _MARGIN:
                best = mode
        self.choice = best
        self.why = f"measured, median of {n} runs in turn: {', '.join(texts)}"
        self.decided = True

    def settle(self, reason: str) -> None:
        """Stop measuring and keep the candidate believed in."""
        turn = self._take_turn() if self._exclusive else None
        try:
            with self.lock:
                self._keep(reason)
        finally:
            if turn is not None:
                turn.release()

    def _keep(self, reason: str) -> None:
        if self.decided:
            return
        self.why = f"{self.why}; not measured: {reason}"
        self.decided = True


def paired_ratio(top: Sequence[float], bottom: Sequence[float]) -> float:
    """Return the median over rounds of ``top / bottom``.

    Not the ratio of the least times: where threads hand over, a mode may be lucky now and then, and
    what it takes as a rule is what runs will take.
    """
    # Coarse clocks may see no time pass.
    return statistics.median(a / max(b, 1e-9) for a, b in zip(top, bottom, strict=True))
