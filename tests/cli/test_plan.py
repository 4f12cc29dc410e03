"""``asyncnet plan``: tables, text, and JSON that an independent checker takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.cli_nets import write_nets
from helpers.plan_checker import check_plan

from asyncnet_gpu.cli import main


@pytest.fixture
def towers(tmp_path: Path) -> str:
    return f"{write_nets(tmp_path)}:towers"


def plan_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", *arguments, "--json"]) == 0
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    return made


@pytest.mark.parametrize("allocator", ["cost", "exact"])
@pytest.mark.parametrize("backend", ["cpu", "cuda", "sim"])
@pytest.mark.parametrize("mode", ["serial", "streams", "graph"])
def test_json_is_the_published_form(
    towers: str, mode: str, backend: str, allocator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--mode", mode, "--backend", backend, "--allocator", allocator)
    made = plan_json(capsys, towers, *options)
    assert (made["schema"], made["net"], made["mode"]) == (1, "towers", mode)
    assert made["streams"][0]["device"] == f"{backend}:0"
    check_plan(made)


def test_table_names_steps_streams_and_reasons(
    towers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", towers, "--allocator", "exact"]) == 0
    shown = capsys.readouterr().out
    for words in ("towers", "cpu:0/2", "m0.1", "MatMul", "RAW r1.1", "arena on cpu:0"):
        assert words in shown


def test_describe_is_the_text_of_the_library(
    towers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", towers, "--describe", "--max-streams", "2", "--backend", "sim"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("plan of 'towers': streams, allocator cost")
    assert "sim:0/1 compute" in shown
    assert "sim:0/2" not in shown


def test_a_saved_net_and_a_model_can_be_planned(
    towers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnx import parser

    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]>'
        "agraph (float[N,3] x) => (float[N,3] y) { h = Relu (x)\n y = Tanh (h) }"
    )
    file = tmp_path / "model.onnx"
    file.write_bytes(model.SerializeToString())
    made = plan_json(capsys, str(file), "--shape", "x=5,3")
    assert [blob["shape"] for blob in made["blobs"]] == [[5, 3]] * 3


def test_wrong_use_and_wrong_nets(towers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", towers, "--mode", "auto"]) == 1
    assert "decided by running" in capsys.readouterr().err
    assert main(["plan", towers, "--mode", "fast"]) == 1
    assert "expected serial | streams" in capsys.readouterr().err
    assert main(["plan", "nothing.json"]) == 1
    assert main(["plan"]) == 2
    capsys.readouterr()
    assert main(["plan", "--help"]) == 0
    assert "asyncnet plan model.onnx" in " ".join(capsys.readouterr().out.split())
