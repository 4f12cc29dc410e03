"""``asyncnet explain``: the report of a net, and why one node waits for another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.cli_nets import write_nets

from asyncnet_gpu.cli import main
from asyncnet_gpu.report import diagnosis as kinds


@pytest.fixture
def nets(tmp_path: Path) -> str:
    return str(write_nets(tmp_path))


def explain_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["explain", *arguments, "--json"]) == 0
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    return made


def test_a_measured_report(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{nets}:towers", "--backend", "cpu", "--rounds", "2"]) == 0
    shown = capsys.readouterr().out
    for words in ("towers: cpu", "measured", "work / span", "What to do:", "critical path", "y"):
        assert words in shown


@pytest.mark.parametrize("mode", ["serial", "streams", "auto"])
def test_json_of_a_report(nets: str, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (f"{nets}:towers", "--backend", "cpu", "--mode", mode, "--rounds", "2")
    report = explain_json(capsys, *arguments)
    assert report["measured"] is True
    assert report["n_steps"] == 13
    assert report["causes"]
    assert report["path"][-1]["name"] == "y"
    assert report["ratio"] == pytest.approx(report["work_s"] / report["span_s"])
    assert report["why_this_mode"]
    if mode == "auto":
        assert not report["why_this_mode"].startswith("predicted")


def test_a_simulated_chain_is_limited_by_its_dependencies(
    nets: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = explain_json(capsys, f"{nets}:chain", "--backend", "sim")
    assert report["measured"] is False
    assert report["causes"][0]["kind"] == kinds.DEPENDENCY
    assert [step["name"] for step in report["path"]] == [f"s{i}" for i in range(5)]


def test_one_stream_is_too_few(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = explain_json(capsys, f"{nets}:towers", "--backend", "sim", "--mode", "serial")
    assert kinds.STREAMS in [cause["kind"] for cause in report["causes"]]


def test_why_one_waits_for_another(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{nets}:towers", "m0.0", "r0.0"]) == 0
    assert "(RAW m0.0)" in capsys.readouterr().out
    answer = explain_json(capsys, f"{nets}:towers", "m0.0", "m1.0", "--allocator", "exact")
    assert answer["first"] == "m0.0"
    assert "may overlap" in answer["why"]


def test_wrong_use(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{nets}:towers", "m0.0"]) == 2
    assert main(["explain", f"{nets}:towers", "m0.0", "nothing"]) == 1
    assert "nothing" in capsys.readouterr().err
    assert main(["explain", f"{nets}:towers", "--rounds", "0"]) == 2
