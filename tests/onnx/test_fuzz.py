"""Some hundred broken models in the ordinary run; ``make fuzz`` tries 100,000."""

from __future__ import annotations

import random

import pytest
from helpers import onnx_fuzz
from helpers.onnx_invent import invented
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("kind", ["mutated", "invented"])
def test_broken_models_are_loaded_or_refused(kind: str) -> None:
    # In a child process: a crash of the interpreter is a finding, not the end of the test run.
    score = onnx_fuzz.try_range(kind, 1_000_000, 1_000_300, large=False)
    assert not score.bad, "\n".join(score.bad)
    refused = sum(n for verdict, n in score.verdicts.items() if verdict.startswith("refused"))
    # Both happen: otherwise the mutations are too harsh or too timid to show anything.
    assert 30 < refused < 290
    assert score.verdicts["run"] > 10


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_invented_models_shrink(rng: random.Random) -> None:
    onnx_fuzz.check(invented(rng))


def test_a_dead_worker_is_reported_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    # An address space too small for the files themselves: the worker fails or dies on them.
    monkeypatch.setattr(onnx_fuzz, "_environment", lambda: {"PATH": ""})
    score = onnx_fuzz.try_range("invented", 5, 6, large=False)
    assert len(score.bad) == 1
    assert score.bad[0].startswith("BAD 5: exit status")
