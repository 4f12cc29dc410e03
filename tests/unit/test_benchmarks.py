"""The entry point of the benchmarks: what runs where, and that no number is made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as entry


def test_the_results_of_one_benchmark_are_written_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "results.json"
    arguments = ["--backend", "cpu", "--only", "soak", "--runs", "100", "--json", str(path)]
    assert entry.main(arguments) == 0
    data = json.loads(path.read_text())
    assert data["backend"] == "cpu"
    assert data["machine"]["cores"] >= 1
    assert data["soak"]["runs"] == 100
    assert data["soak"]["wrong"] == 0
    assert "core" not in data
    assert "100 runs on cpu" in capsys.readouterr().out


def test_nothing_run_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--backend", "cpu", "--only", "cuda_host_cost"]) == 1
    assert "not run" in capsys.readouterr().out


def test_a_complaint_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "run_all", lambda *_: {"soak": {"complaints": ["memory grew"]}})
    assert entry.main(["--backend", "cpu"]) == 1


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "cuda_devices", list)
    with pytest.raises(SystemExit, match="no CUDA device answers"):
        entry.choose_backend("cuda")
    assert entry.choose_backend("auto") == "cpu"


def test_software_devices_are_never_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    core = next(b for b in entry.BENCHMARKS if b.name == "core")
    monkeypatch.setattr("benchmarks.harness.cuda_devices", lambda: ["some software device 0"])
    assert "there is no GPU" in entry.not_run(core, "cuda")
    assert entry.not_run(core, "cpu") == ""
    monkeypatch.setattr("benchmarks.harness.cuda_devices", lambda: ["NVIDIA H200"])
    assert entry.not_run(core, "cuda") == ""


def test_every_benchmark_can_be_measured_or_is_missing() -> None:
    import importlib
    import importlib.util

    for benchmark in entry.BENCHMARKS:
        if importlib.util.find_spec(f"benchmarks.{benchmark.name}"):
            assert callable(importlib.import_module(f"benchmarks.{benchmark.name}").measure)
