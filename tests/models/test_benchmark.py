"""The benchmark of models checks what it times, and its page says what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import models
from benchmarks.nets.models import MODELS, Model


@pytest.fixture(scope="module")
def row() -> models.Row:
    return models.measure_model(MODELS["silero_vad_half"], budget_s=0.1)


def test_a_row_has_every_candidate(row: models.Row) -> None:
    assert set(row.best_ms) == {*models.OURS, *models.THEIRS, models.WALL}
    assert all(0 < row.best_ms[name] <= row.median_ms[name] for name in row.best_ms)
    assert row.ratio(1) == pytest.approx(
        row.best_ms["serial, 1 thread"] / row.best_ms["onnxruntime, 1 thread"]
    )
    assert row.ratio(2, "median_ms") > 0
    assert row.work_over_span >= 1


def test_the_page_names_models_and_what_takes_time(row: models.Row) -> None:
    found = models.where(MODELS["silero_vad_half"], rounds=1)
    assert sum(share for _, _, share in found.values()) == pytest.approx(1)
    assert sum(n for n, _, _ in found.values()) > 10
    page = models.document([row], {row.name: found}, models.about_machine())
    assert f"| {row.name} | {row.n_steps} |" in page
    assert next(iter(found)) in page


def test_a_wrong_number_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["silero_vad_half"]
    real = models.load

    def off(model: Model, inputs: dict[str, np.ndarray]) -> object:
        net = real(model, inputs)
        net.sources[-1].value[...] += 1
        return net

    monkeypatch.setattr(models, "load", off)
    with pytest.raises(AssertionError, match="Mismatched elements"):
        models.measure_model(model, budget_s=0.1)
