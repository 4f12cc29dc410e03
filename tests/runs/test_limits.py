"""Limits of waits: anything that is a number of seconds is taken, anything else is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.backends.base import Execution
from asyncnet_gpu.blame import blame
from asyncnet_gpu.limits import LONGEST_S, limit_s

X = np.arange(-2, 2, dtype=np.float32)

NET = ag.AsyncNet("limits")
_y = NET.relu(NET.input("x", (4,), "float32"))
READY = NET.barrier(_y, name="ready")
NET.output(y=NET.neg(_y))

USES: dict[str, Callable[[ag.Executable, Any], object]] = {
    "run": lambda exe, limit: exe.run(x=X, timeout_s=limit),
    "result": lambda exe, limit: exe.submit(x=X).result(limit),
    "exception": lambda exe, limit: exe.submit(x=X).exception(limit),
    "deadline": lambda exe, limit: exe.submit(x=X, deadline_s=limit).result(20),
    "barrier": lambda exe, limit: READY.wait(exe.submit(x=X), limit),
}


def compiled(mode: str, **options: Any) -> ag.Executable:
    return NET.compile(backend="cpu", mode=mode, **options)


@pytest.mark.parametrize("limit", [math.inf, 1e12, 10**400, 20, np.float32(20)])
@pytest.mark.parametrize("mode", ["serial", "auto"])
@pytest.mark.parametrize("use", USES)
def test_long_limits_are_taken(use: str, mode: str, limit: float) -> None:
    with compiled(mode, timeout_s=limit) as exe:
        USES[use](exe, limit)
        np.testing.assert_array_equal(exe.run(x=X)["y"], -np.maximum(X, 0))


@pytest.mark.parametrize("limit", [math.nan, "1", [1], 1j])
@pytest.mark.parametrize("mode", ["serial", "auto"])
@pytest.mark.parametrize("use", USES)
def test_what_is_no_time_is_refused_before_anything_runs(use: str, mode: str, limit: Any) -> None:
    with compiled(mode) as exe:
        with pytest.raises(ag.PlanError, match=r"expected a number of seconds, got"):
            USES[use](exe, limit)
        np.testing.assert_array_equal(exe.run(x=X)["y"], -np.maximum(X, 0))


@pytest.mark.parametrize("limit", [math.nan, "1", None, 0, -1.0, -math.inf])
def test_an_executable_needs_a_limit(limit: Any) -> None:
    with pytest.raises(ag.PlanError, match=r"^\[compile\] bad timeout_s: expected"):
        compiled("serial", timeout_s=limit)


@pytest.mark.parametrize("limit", [0, -1, -math.inf])
def test_a_time_that_has_passed_waits_for_nothing(limit: float) -> None:
    with compiled("serial") as exe, pytest.raises(ag.DeadlineExceeded):
        exe.run(x=X, timeout_s=limit)


def test_limits_are_cut_to_what_every_wait_takes() -> None:
    assert LONGEST_S > 3 * 365 * 24 * 3600
    assert [limit_s("run", "timeout_s", t) for t in (-3, 0, 7, math.inf)] == [0, 0, 7, LONGEST_S]


def test_an_error_of_the_run_itself_is_not_told_as_one_of_its_last_step() -> None:
    with compiled("serial") as exe:
        execution = Execution({})
        execution.fail(0, ValueError("first"))
        execution.fail(-1, RuntimeError("second"))
        notes = blame(exe.plan, 0, execution).__notes__
    assert notes == ["also failed: the run: RuntimeError: second"]
