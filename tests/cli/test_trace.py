"""``asyncnet trace``: files that are what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.cli_nets import write_nets

from asyncnet_gpu.cli import main

N_STEPS = 13


@pytest.fixture
def towers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"{write_nets(tmp_path)}:towers"


def steps_in(file: Path) -> int:
    events: list[dict[str, Any]] = json.loads(file.read_text())["traceEvents"]
    return sum(event["ph"] == "X" for event in events)


def test_without_options_a_chrome_trace_beside_the_net(
    towers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", towers, "--backend", "cpu", "--runs", "2"]) == 0
    assert steps_in(tmp_path / "nets_of_the_user.trace.json") == 2 * N_STEPS
    shown = " ".join(capsys.readouterr().out.split())
    assert "wrote nets_of_the_user.trace.json" in shown
    assert "2 runs of 13 steps" in shown


def test_both_files_and_json(
    towers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["trace", towers, "-o", "a.json", "--html", "b.page", "--backend", "cpu"]
    assert main([*arguments, "--slots", "2", "--runs", "4", "--allocator", "exact", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["files"] == ["a.json", "b.page"]
    assert answer["steps"] == N_STEPS
    assert len(answer["runs"]) == 4
    assert steps_in(tmp_path / "a.json") == 4 * N_STEPS
    assert (tmp_path / "b.page").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("mode", ["serial", "auto", "graph"])
def test_every_mode(towers: str, mode: str, tmp_path: Path) -> None:
    arguments = ["trace", towers, "--backend", "cpu", "--mode", mode, "-o", "a.json"]
    assert main([*arguments, "--runs", "1"]) == 0
    assert steps_in(tmp_path / "a.json") == N_STEPS


def test_virtual_time(towers: str, tmp_path: Path) -> None:
    assert main(["trace", towers, "--backend", "sim", "--html", "a.html", "--runs", "1"]) == 0
    assert "simulated" in (tmp_path / "a.html").read_text()


def test_ranges_for_profilers(towers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import nvtx

    opened: list[str] = []
    monkeypatch.setattr(nvtx, "push_range", lambda message, domain: opened.append(message))
    monkeypatch.setattr(nvtx, "pop_range", lambda domain: opened.append("end"))
    assert main(["trace", towers, "--backend", "cpu", "--runs", "1", "--nvtx"]) == 0
    assert opened.count("end") == N_STEPS
    assert "MatMul m0.0" in opened


def test_a_folder_that_is_not_there(towers: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["trace", towers, "--backend", "cpu", "-o", "nowhere/a.json"]
    assert main([*arguments, "--runs", "1"]) == 2
    assert "nowhere" in capsys.readouterr().err
