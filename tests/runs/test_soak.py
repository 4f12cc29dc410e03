"""A short soak: hundreds of runs, eight threads, four slots; the long one is a benchmark."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from benchmarks import soak


@pytest.mark.parametrize("mode", ["streams", "graph"])
def test_hundreds_of_runs_are_right_and_leave_nothing_behind(mode: str) -> None:
    wrong, memory = soak.soak("cpu", 400, mode)
    assert soak.complaints(wrong, memory) == []
    assert [m.runs for m in memory] == [40 * i for i in range(11)]
    assert memory[-1].traced > 0


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["streams", "graph"])
def test_hundreds_of_runs_on_cuda_leave_nothing_on_the_device(mode: str) -> None:
    wrong, memory = soak.soak("cuda", 200, mode)
    assert soak.complaints(wrong, memory) == []
    assert memory[0].device > 0


def test_a_wrong_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = soak.wanted
    monkeypatch.setattr(soak, "wanted", lambda v: right(v) + (v == 7.0))
    wrong, memory = soak.soak("cpu", 8 * 520)
    assert wrong
    assert all("x=7.0" in line for line in wrong)
    assert "wrong, the first" in soak.complaints(wrong, memory)[0]


def test_a_leak_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    def leaky() -> ag.AsyncNet:
        def keep(xp: Any, a: Any, out: Any) -> None:
            kept.append(np.zeros(1000, np.uint8))
            out[:] = soak.wanted(a.flat[0])

        net = ag.AsyncNet("leaky")
        x = net.input("x", (8, 8), "float32")
        net.output(net.call(keep, x, shape=(8, 8), dtype="float32", name="y"))
        return net

    monkeypatch.setattr(soak, "soak_net", leaky)
    wrong, memory = soak.soak("cpu", 400)
    assert not wrong
    assert "traced memory grew" in soak.complaints(wrong, memory)[0]
