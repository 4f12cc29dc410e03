"""Many runs in flight for long: ``python -m benchmarks.soak [--backend cpu] [--runs 10000]``.

Eight threads submit runs to one executable with four slots; every answer is checked. Memory is read
whenever all threads have stopped: resident bytes of the process, bytes that Python traces, and on
CUDA the bytes in use on the devices. They must not grow with the number of runs. Memory counts, no
clock does: nothing here is a timing.
"""

from __future__ import annotations

import argparse
import gc
import os
import threading
import tracemalloc
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import asyncnet_gpu as ag
from benchmarks.harness import device_bytes, save

N_THREADS = 8
N_SLOTS = 4
#: Runs that one thread has in flight at a time.
WINDOW = 3
CHECKPOINTS = 10
TIMEOUT_S = 120.0
#: What may come and go with caches and thread stacks, whatever the number of runs. A leak of one
#: output array (256 bytes and its header) per run is twenty times as much in 10,000 runs.
MOST_TRACED_GROWTH = 200_000
MOST_RESIDENT_GROWTH = 16 << 20
MOST_DEVICE_GROWTH = 2 << 20  # the driver's granule


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in use at one time; `device` is 0 where there is none."""

    runs: int
    resident: int
    traced: int
    device: int


def soak_net() -> ag.AsyncNet:
    """Two branches of own functions and operators, a barrier, a product, a join."""

    def shift(xp: Any, a: Any, out: Any) -> None:
        xp.subtract(a, 2, out=out)

    net = ag.AsyncNet("soak")
    x = net.input("x", (8, 8), "float32")
    w = net.parameter("w", np.eye(8, dtype=np.float32))
    a = net.add(net.relu(net.matmul(x, w)), 1.0)
    b = net.mul(net.call(shift, x, shape=(8, 8), dtype="float32"), 3.0)
    net.barrier(a, b, name="both")
    net.output(net.add(a, b, name="y"))
    return net


def wanted(value: float) -> float:
    """What each element of ``y`` is when each of ``x`` is `value`, a small integer: exact."""
    return max(value, 0.0) + 1.0 + 3.0 * (value - 2.0)


def resident_bytes() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Clients:
    """Threads that submit and check; what was wrong."""

    def __init__(self, exe: ag.Executable) -> None:
        self.exe = exe
        self.wrong: list[str] = []

    def _client(self, first: int, count: int) -> None:
        flying: deque[tuple[float, Any]] = deque()
        try:
            for i in range(count):
                value = float((first + i) % 1009 - 500)
                flying.append((value, self.exe.submit(x=np.full((8, 8), value, np.float32))))
                if len(flying) == WINDOW:
                    self._check(*flying.popleft())
            while flying:
                self._check(*flying.popleft())
        except Exception as error:  # whatever it is, the soak has failed and says so
            self.wrong.append(repr(error))

    def _check(self, value: float, run: Any) -> None:
        y = ag.to_numpy(run.result(TIMEOUT_S)["y"])
        if not (y == wanted(value)).all():
            self.wrong.append(f"x={value}: expected {wanted(value)}, got {y.ravel()[:3]}")

    def submit(self, first: int, count: int) -> None:
        """Submit `count` runs from all threads and wait for the threads."""
        share = [count // N_THREADS + (t < count % N_THREADS) for t in range(N_THREADS)]
        threads = [
            threading.Thread(target=self._client, args=(first + 131 * t, n), daemon=True)
            for t, n in enumerate(share)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S * max(1, count // 100))
            if thread.is_alive():
                self.wrong.append("a client hangs")


def soak(
    backend: str = "cpu", runs: int = 10_000, mode: str = "streams"
) -> tuple[list[str], list[Memory]]:
    """Submit `runs` runs after a tenth as many to warm up.

    Returns
    -------
    What was wrong (nothing is right), and memory after each tenth of the runs, the first before.
    """
    memory: list[Memory] = []
    options = {"backend": backend, "mode": mode, "allocator": "exact", "slots": N_SLOTS}
    with soak_net().compile(queue=2 * N_THREADS, timeout_s=TIMEOUT_S, **options) as exe:
        clients = _Clients(exe)
        clients.submit(0, max(N_THREADS * WINDOW * 2, runs // 10))
        tracemalloc.start()
        try:
            done = 0
            clients.submit(0, 4 * N_THREADS)  # what tracing itself keeps
            for part in range(CHECKPOINTS + 1):
                gc.collect()
                memory.append(
                    Memory(done, resident_bytes(), tracemalloc.get_traced_memory()[0],
                           device_bytes(exe.backend))
                )  # fmt: skip
                if part < CHECKPOINTS:
                    count = runs * (part + 1) // CHECKPOINTS - done
                    clients.submit(done, count)
                    done += count
        finally:
            tracemalloc.stop()
    return clients.wrong, memory


def growth(memory: list[Memory]) -> dict[str, int]:
    """Return by how many bytes each kind of memory grew from the first to the last reading."""
    kinds = ("resident", "traced", "device")
    return {kind: getattr(memory[-1], kind) - getattr(memory[0], kind) for kind in kinds}


def complaints(wrong: list[str], memory: list[Memory]) -> list[str]:
    """Return what is not as it must be; empty when all is well."""
    grown = growth(memory)
    found = [f"{len(wrong)} wrong, the first: {wrong[0]}"] if wrong else []
    for kind, most in (
        ("traced", MOST_TRACED_GROWTH), ("resident", MOST_RESIDENT_GROWTH),
        ("device", MOST_DEVICE_GROWTH),
    ):  # fmt: skip
        if grown[kind] > most:
            found.append(f"{kind} memory grew by {grown[kind]:,} bytes, allowed are {most:,}")
    return found


def measure(backend: str, *, runs: int = 10_000) -> dict[str, Any]:
    """Soak, print, and return the result as JSON-able data."""
    wrong, memory = soak(backend, runs)
    print(f"{runs:,} runs on {backend}, {N_SLOTS} slots, {N_THREADS} threads: {len(wrong)} wrong")
    for kind, grown in growth(memory).items():
        values = [getattr(m, kind) for m in memory]
        if any(values):
            print(
                f"  {kind:8} bytes: before {values[0]:>13,}, after {values[-1]:>13,}, "
                f"highest {max(values):>13,}, grown by {grown:,}"
            )
    found = complaints(wrong, memory)
    for line in found:
        print(f"  WRONG: {line}")
    return {
        "backend": backend, "runs": runs, "slots": N_SLOTS, "threads": N_THREADS,
        "wrong": len(wrong), "complaints": found, "grown_bytes": growth(memory),
        "readings": [[m.runs, m.resident, m.traced, m.device] for m in memory],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/soak.json")
    options = parser.parse_args()
    result = measure(options.backend, runs=options.runs)
    if options.save:
        name = "soak" if options.backend == "cpu" else f"soak_{options.backend}"
        print("saved", save(name, result).name)
    return 1 if result["complaints"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
