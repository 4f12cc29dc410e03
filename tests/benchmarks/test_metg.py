"""The search for METG(50 %) on efficiencies that are known in closed form."""

from __future__ import annotations

import pytest

from benchmarks.nets.taskbench import PATTERNS, WIDTH, tasks_by_inputs
from benchmarks.suites.metg import find_metg, one_task_s


@pytest.mark.parametrize("overhead_us", [0.5, 3.0, 47.0, 800.0])
def test_constant_overhead_gives_twice_the_overhead(overhead_us: float) -> None:
    # A task of n elements takes n * 1 ns, and overhead comes on top: half the rate is reached where
    # both are equal, at a granularity of twice the overhead.
    overhead_s = 1e-6 * overhead_us

    def measure(n: int) -> tuple[float, float]:
        useful_s = 1e-9 * n
        return useful_s / (useful_s + overhead_s), useful_s + overhead_s

    found = find_metg(measure, largest=1 << 24)
    assert found == pytest.approx(2 * overhead_s, rel=0.06)


def test_every_size_is_measured_once_and_the_search_stops_below_the_target() -> None:
    sizes: list[int] = []

    def measure(n: int) -> tuple[float, float]:
        sizes.append(n)
        return (0.9 if n > 100 else 0.1), 1e-9 * n

    found = find_metg(measure, largest=1024)
    assert sizes == [1024, 512, 256, 128, 64]
    assert found is not None
    assert 64e-9 < found < 128e-9


def test_a_target_out_of_reach_is_none() -> None:
    assert find_metg(lambda n: (0.4, 1e-9 * n)) is None


def test_efficiency_that_never_falls_gives_the_smallest_granularity() -> None:
    assert find_metg(lambda n: (0.9, 1e-9 * n), smallest=64) == pytest.approx(64e-9)


def test_patterns_depend_on_tasks_that_are_there() -> None:
    for name, depends in PATTERNS.items():
        for step in range(1, 12):
            for place in range(WIDTH):
                before = depends(step, place, WIDTH)
                assert sorted(set(before)) == before, name
                assert all(0 <= p < WIDTH for p in before), name
    assert PATTERNS["stencil_1d"](1, 0, 8) == [0, 1]
    assert PATTERNS["fft"](2, 3, 8) == [1, 3]
    assert PATTERNS["tree"](1, 1, 8) == [0]
    assert tasks_by_inputs("tree", 8, 5) == {1: 1 + 2 + 4 + 8 + 8}
    assert tasks_by_inputs("stencil_1d", 4, 3) == {1: 4, 2: 4, 3: 4}


def test_one_task_takes_longer_when_it_is_larger() -> None:
    assert one_task_s(1 << 18) > one_task_s(1 << 10) > 0
