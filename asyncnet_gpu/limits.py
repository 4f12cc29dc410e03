"""Limits of waits in seconds: what may be given, and what every wait of the system takes."""

from __future__ import annotations

from numbers import Real
from typing import Any

from asyncnet_gpu.errors import PlanError, message

#: Three years: sums with any clock stay within what the system's waits take.
LONGEST_S = 1e8


def limit_s(where: str, option: str, given: Any) -> float:
    """Return a limit as a number that every wait takes.

    A time that has passed already is a limit of 0, and infinity is `LONGEST_S`.

    Raises
    ------
    PlanError
        If it is no number of seconds.

    Examples
    --------
    >>> limit_s("run", "timeout_s", float("inf")) == LONGEST_S, limit_s("run", "timeout_s", -1)
    (True, 0.0)
    """
    if not isinstance(given, Real) or given != given:
        raise PlanError(
            message(where, f"bad {option}", expected="a number of seconds", got=repr(given),
                    remedy="Give an int or float, or leave it out.")
        )  # fmt: skip
    number: Any = given  # longer than a float can be, perhaps
    return float(min(max(number, 0), LONGEST_S))


def longest_run_s(given: object) -> float:
    """Return the limit that an executable sets to all its runs: more than 0; see `limit_s`."""
    limit = limit_s("compile", "timeout_s", given)
    if limit <= 0:
        raise PlanError(
            message("compile", "bad timeout_s", expected="more than 0 seconds", got=repr(given),
                    remedy="Give the longest that any run may take.")
        )  # fmt: skip
    return limit
