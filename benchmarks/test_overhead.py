"""Overhead of a step that does nothing under pytest-benchmark; one group."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from benchmarks.suites.overhead import N_STEPS, candidates

with ExitStack() as _stack:
    NAMES = list(candidates(_stack)[0])


@pytest.mark.parametrize("system", NAMES)
def test_chain(benchmark: Any, system: str) -> None:
    with ExitStack() as stack:
        calls, _ = candidates(stack)
        benchmark.group = f"chain of {N_STEPS:,} one-element relu"
        call = calls[system]
        benchmark.pedantic(call, rounds=15, iterations=1, warmup_rounds=2)
        benchmark.extra_info |= {
            "steps": N_STEPS,
            "us_per_step": 1e6 * benchmark.stats.stats.median / N_STEPS,
        }
