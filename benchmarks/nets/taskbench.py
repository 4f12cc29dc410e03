"""Task-Bench (Slaughter et al., SC 2020): the same small task in grids of different dependence.

A task adds up what it depends on and computes for a while on `n` elements, in one call; the pattern
says on which tasks of the step before it depends.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import asyncnet_gpu as ag

from .workload import Workload, scaled, uniform

WIDTH, STEPS = 8, 25

Depends = Callable[[int, int, int], list[int]]


def _stencil(step: int, place: int, width: int) -> list[int]:
    return [p for p in (place - 1, place, place + 1) if 0 <= p < width]


def _fft(step: int, place: int, width: int) -> list[int]:
    levels = max(1, width.bit_length() - 1)
    return sorted({place, place ^ 1 << (step - 1) % levels} & set(range(width)))


def _tree(step: int, place: int, width: int) -> list[int]:
    return [place // 2] if 1 << step <= width else [place]


def _random_nearest(step: int, place: int, width: int) -> list[int]:
    rng = random.Random(f"{step} {place}")
    near = [p for p in range(place - 2, place + 3) if 0 <= p < width and p != place]
    return sorted([place, *(p for p in near if rng.random() < 0.5)])


def _spread(step: int, place: int, width: int) -> list[int]:
    return sorted({(place + j * width // 3 + step) % width for j in range(3)})


PATTERNS: Mapping[str, Depends] = {
    "trivial": lambda step, place, width: [],
    "no_comm": lambda step, place, width: [place],
    "stencil_1d": _stencil,
    "fft": _fft,
    "tree": _tree,
    "random_nearest": _random_nearest,
    "spread": _spread,
}


def tasks_at(pattern: str, step: int, width: int) -> int:
    """Return how many tasks a step has: a tree doubles until it is full."""
    return min(width, 1 << step) if pattern == "tree" else width


def task(xp: Any, *arrays: Any, out: Any) -> None:
    """Write the hyperbolic tangent of the arrays' sum."""
    total = arrays[0]
    for other in arrays[1:]:
        xp.add(total, other, out=out)
        total = out
    xp.tanh(total, out=out)


def _first(xp: Any, *arrays: Any, out: Any) -> None:
    """Write the first array: the others only have to be there."""
    out[...] = arrays[0]


def tasks_by_inputs(pattern: str, width: int = WIDTH, steps: int = STEPS) -> Counter[int]:
    """Return how many tasks of a whole grid read 1, 2, 3 ... arrays."""
    found: Counter[int] = Counter()
    for step in range(steps):
        for place in range(tasks_at(pattern, step, width)):
            before = PATTERNS[pattern](step, place, width) if step else []
            found[max(1, len(before))] += 1
    return found


def _plain(pattern: str, steps: int) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
        row: list[Any] = []
        total = None
        for step in range(steps):
            new = []
            for place in range(tasks_at(pattern, step, WIDTH)):
                before = PATTERNS[pattern](step, place, WIDTH) if step else []
                out = xp.empty_like(a["x"])
                task(xp, *([row[p] for p in before] or [a["x"]]), out=out)
                new.append(out)
            row = new
        for out in row:
            total = out if total is None else total + out
        return {"y": total}

    return plain


def build(scale: float = 1.0, pattern: str = "stencil_1d", n: int = 0) -> Workload:
    n = n or scaled(1 << 15, scale)
    net = ag.AsyncNet(pattern)
    x = net.input("x", (n,), "float64")
    row: list[ag.Blob] = []
    ends: list[ag.Blob] = []
    for step in range(STEPS):
        new = []
        for place in range(tasks_at(pattern, step, WIDTH)):
            before = PATTERNS[pattern](step, place, WIDTH) if step else []
            made = net.call(
                task, *([row[p] for p in before] or [x]), shape=(n,), dtype="float64",
                name=f"t{place}.{step}",
            )  # fmt: skip
            new.append(made)
        if pattern == "trivial":
            ends += new
        row = new
    total = row[0]
    for other in row[1:]:
        total = net.add(total, other)
    if ends:
        total = net.call(_first, total, *ends, shape=(n,), dtype="float64", name="all")
    net.output(y=total)
    return Workload(
        f"taskbench {pattern}", net, {"x": uniform(1, n, dtype="float64")}, _plain(pattern, STEPS),
        hand=tuple(f"t{p}." for p in range(1, WIDTH)), rtol=1e-10,
        sizes=f"{WIDTH} x {STEPS} tasks of {n:,} elements",
    )  # fmt: skip
