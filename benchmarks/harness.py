"""Timing that survives a noisy machine: candidates take turns, results are ratios of medians."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each round of one candidate."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def fastest_s(self) -> float:
        """The quietest round: what other processes took from the others it shows least."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        q1, _, q3 = statistics.quantiles(self.seconds, n=4)
        return (q3 - q1) / self.median_s


def interleave(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 15, warm_ups: int = 3,
    seed: int | None = None, rest_s: Mapping[str, float] | None = None,
    quiet: QuietRounds | None = None, prime_s: float | None = None,
) -> dict[str, Timing]:  # fmt: skip
    """Call the candidates in turn, `rounds` times each, after `warm_ups` unmeasured turns.

    Parameters
    ----------
    seed
        When given, every round has its own order of the candidates, so that no one always follows
        the same other one.
    rest_s
        Seconds to let pass after a candidate whose library leaves threads spinning.
    quiet
        Repeats rounds in which other processes took the cores, as far as its budget goes.
    prime_s
        Call every candidate in its turn, once or for so many seconds, before the call that is
        timed: the others have driven its data from the cache, and after a pause a virtual machine
        may need a tenth of a second until two threads run on two cores again.
    """
    order = list(candidates)
    shuffle = random.Random(seed).shuffle if seed is not None else (lambda _: None)
    rests = rest_s or {}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    turn = 0
    while turn < warm_ups + rounds:
        shuffle(order)
        taken: dict[str, float] = {}
        if quiet is not None:
            quiet.begin()
        for name in order:
            if prime_s is not None:
                _prime(candidates[name], prime_s)
            start = time.perf_counter()
            candidates[name]()
            taken[name] = time.perf_counter() - start
            if name in rests:
                time.sleep(rests[name])
        measured = turn >= warm_ups
        if quiet is not None and measured and quiet.repeat():
            continue
        turn += 1
        if measured:
            for name, elapsed in taken.items():
                seconds[name].append(elapsed)
    return {name: Timing(name, tuple(values)) for name, values in seconds.items()}


def _prime(call: Callable[[], object], seconds: float) -> None:
    start = time.perf_counter()
    call()
    while time.perf_counter() - start < seconds:
        call()


@contextlib.contextmanager
def pinned_threads(*, by_stream: bool = True) -> Iterator[None]:
    """Bind every thread of this process to one core: streams to their own, all others in turn.

    With several slots the streams of one number are as many threads: `by_stream` False binds
    those in turn too.

    For machines with other work on them, whose scheduler likes to put all threads of a process on
    one core. Linux only. Enter it when all threads are there; at the end all may go everywhere.
    """
    cores = sorted(os.sched_getaffinity(0))
    _pin(cores, by_stream)
    try:
        yield
    finally:
        for tid in map(int, os.listdir("/proc/self/task")):
            with contextlib.suppress(ProcessLookupError):  # ended meanwhile
                os.sched_setaffinity(tid, cores)


#: Threads that are measured at the same time.
_PLACES = {"MainThread": 0, "bench:second": 1}


def _pin(cores: Sequence[int], by_stream: bool) -> None:
    named = {t.native_id: t.name for t in threading.enumerate()}
    others = itertools.cycle([*cores[1:], cores[0]])
    for tid in sorted(int(name) for name in os.listdir("/proc/self/task")):
        name = named.get(tid, "")
        if name in _PLACES:
            core = cores[_PLACES[name] % len(cores)]
        elif by_stream and name.startswith("asyncnet-cpu:"):
            core = cores[int(name.rpartition("/")[2]) % len(cores)]
        else:
            core = next(others)
        with contextlib.suppress(ProcessLookupError):  # ended meanwhile
            os.sched_setaffinity(tid, {core})


class QuietRounds:
    """Notes what share of the cores other processes took in each round; repeats loud rounds.

    The choice looks at other processes only, never at the times measured. Linux only: elsewhere
    every round counts as quiet.

    Parameters
    ----------
    limit
        Share of all cores, 0 to 1, above which a round is loud.
    budget_s
        Seconds that repeated rounds may take; after that loud rounds count too.

    Attributes
    ----------
    shares
        Of the rounds that counted.
    n_repeated
        Rounds thrown away.
    """

    def __init__(self, *, limit: float = 0.1, budget_s: float = 20.0) -> None:
        self.limit, self.left_s = limit, budget_s
        self.shares: list[float] = []
        self.n_repeated = 0
        self._at = (0.0, 0.0)

    def begin(self) -> None:
        self._at = (time.perf_counter(), _foreign_cpu_s())

    def repeat(self) -> bool:
        """Whether the round since `begin` was loud and may be repeated."""
        wall_s = time.perf_counter() - self._at[0]
        cores = os.cpu_count() or 1
        # The kernel counts in hundredths of a second: short rounds cannot be judged.
        foreign_s = _foreign_cpu_s() - self._at[1] - 0.01
        share = max(0.0, foreign_s) / (wall_s * cores)
        if share > self.limit and self.left_s > 0:
            self.left_s -= wall_s
            self.n_repeated += 1
            return True
        self.shares.append(share)
        return False

    def summary(self) -> dict[str, Any]:
        """Return what a result should say about its surroundings."""
        worst, median = max(self.shares, default=0.0), statistics.median(self.shares or [0.0])
        return {
            "foreign_cpu_median": round(median, 3), "foreign_cpu_worst": round(worst, 3),
            "rounds_repeated": self.n_repeated,
        }  # fmt: skip


def _foreign_cpu_s() -> float:
    """Processor seconds since boot that this process and its children did not use."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            fields = file.readline().split()
    except OSError:  # not Linux
        return 0.0
    # user, nice, system, idle, iowait, irq, softirq, steal
    busy = sum(int(fields[i]) for i in (1, 2, 3, 6, 7, 8)) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return busy - own.user - own.system - own.children_user - own.children_system


def paired_ratio(timings: Mapping[str, Timing], top: str, bottom: str) -> float:
    """Return the median over rounds of top / bottom: drift that hits a round hits both."""
    pairs = zip(timings[top].seconds, timings[bottom].seconds, strict=True)
    return statistics.median(a / b for a, b in pairs)


def machine() -> dict[str, Any]:
    """Say where a result comes from."""
    import numpy

    from asyncnet_gpu.backends.cpu.cores import usable_cores

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": usable_cores(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cuda_devices() -> list[str]:
    """Return the names of the CUDA devices that answer."""
    try:
        import cupy
    except ImportError:
        return []
    if not cupy.is_available():
        return []
    runtime = cupy.cuda.runtime
    return [
        runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())
    ]


def has_gpu() -> bool:
    """Whether there is hardware behind the CUDA devices: without it device times mean nothing."""
    names = cuda_devices()
    return bool(names) and not any("software" in name for name in names)


def device_bytes(backend: str) -> int:
    """Bytes in use on all CUDA devices, with what every pool has reserved; 0 on other backends."""
    if backend != "cuda":
        return 0
    import cupy

    used = 0
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        with cupy.cuda.Device(index):
            free, total = cupy.cuda.runtime.memGetInfo()
        used += total - free
    return used


def save(name: str, result: Mapping[str, Any]) -> Path:
    """Write a result with its machine to ``benchmarks/results``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    return path
