"""Outputs are compared before anything is timed: ours bit by bit, rivals within tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import asyncnet_gpu as ag
from asyncnet_gpu.errors import AsyncNetError, message

from ..nets.workload import Workload
from .candidate import Candidate

#: Labels, the index of the largest of several numbers, may differ where two are almost equal.
_LABELS_OFF = 1e-4


class WrongOutputError(AsyncNetError):
    """A candidate computed something else; nothing is timed."""


def check_outputs(workload: Workload, candidates: Sequence[Candidate]) -> dict[str, str]:
    """Run every candidate and compare it with the first one, which is ours.

    Returns
    -------
    Candidate to what was found: "same bits", or the largest relative difference.

    Raises
    ------
    WrongOutputError
        If one of ours differs in a bit or a rival by more than the workload's tolerance.
    """
    oracle = _fetch(candidates[0].run())
    found = {candidates[0].name: "oracle"}
    for candidate in candidates[1:]:
        outputs = _fetch(candidate.run())
        compared = [key for key in oracle if key in outputs]
        if not compared or (candidate.ours and len(compared) < len(oracle)):
            raise _wrong(workload, candidate, "outputs are missing", sorted(oracle), list(outputs))
        worst = 0.0
        for key in compared:
            worst = max(worst, _difference(workload, candidate, key, oracle[key], outputs[key]))
        found[candidate.name] = "same bits" if candidate.ours else f"within {worst:.1e}"
    return found


def _fetch(outputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {k: ag.to_numpy(v) for k, v in outputs.items() if not k.startswith("_")}


def _difference(
    workload: Workload, candidate: Candidate, key: str, expected: Any, got: Any
) -> float:
    if candidate.ours:
        if expected.dtype != got.dtype or expected.tobytes() != got.tobytes():
            raise _wrong(
                workload, candidate, f"output {key!r}", "the bits of serial mode", "others"
            )
        return 0.0
    if expected.shape != got.shape:
        raise _wrong(workload, candidate, f"output {key!r}", expected.shape, got.shape)
    if expected.dtype.kind in "iu":
        off = float(np.mean(expected != got))
        if off > _LABELS_OFF:
            raise _wrong(workload, candidate, f"labels {key!r}", f"{_LABELS_OFF} differ", off)
        return off
    if not np.allclose(got, expected, rtol=workload.rtol, atol=workload.atol):
        off = float(np.abs(got - expected).max())
        tolerance = f"rtol {workload.rtol:g}, atol {workload.atol:g}"
        raise _wrong(workload, candidate, f"output {key!r}", tolerance, f"off by up to {off:g}")
    size = float(np.abs(expected).max()) if expected.size else 0.0
    return float(np.abs(got - expected).max() / size) if size else 0.0


def _wrong(
    workload: Workload, candidate: Candidate, what: str, expected: object, got: object
) -> WrongOutputError:
    return WrongOutputError(
        message(
            f"bench {workload.name}: {candidate.name}", what, expected=str(expected), got=str(got),
            remedy="Nothing was timed. Compare the two in a test before trusting either.",
        )
    )  # fmt: skip
