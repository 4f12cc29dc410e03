"""Commands and models with free dimensions, or that run in stages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.staged_models import counting
from onnx import parser

from asyncnet_gpu.cli import main

FREE = """
<ir_version: 9, opset_import: ["" : 18]>
free (float[N,8] x, float[N,8] z) => (float[N,8] y) {
    a = Relu (x)  b = Sigmoid (z)  y = Mul (a, b)
}"""
COMMANDS = ("trace", "explain", "compare", "plan", "verify", "run")
BACKEND = {"compare": []}  # it has two sides


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "free.onnx").write_bytes(parser.parse_model(FREE).SerializeToString())
    (tmp_path / "staged.onnx").write_bytes(counting().SerializeToString())
    np.save(tmp_path / "x.npy", np.ones((5, 8), np.float32))
    return tmp_path


def call(command: str, *arguments: str) -> int:
    return main([command, *arguments, *BACKEND.get(command, ["--backend", "cpu"]), "--json"])


@pytest.mark.parametrize("given", [["--shape", "x=5,8"], ["--input", "x=x.npy"]])
@pytest.mark.parametrize("command", COMMANDS)
def test_shapes_or_inputs_are_enough(
    here: Path, command: str, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command, "free.onnx", *given) == 0
    answer = json.loads(capsys.readouterr().out)
    n_steps = answer.get("n_steps", answer.get("steps", answer.get("nodes")))
    assert n_steps == 3 or len(n_steps) == 3
    if command == "plan":
        assert {tuple(blob["shape"]) for blob in answer["blobs"]} == {(5, 8)}
    if command == "trace":
        assert json.loads((here / "free.trace.json").read_text())["traceEvents"]


@pytest.mark.parametrize("command", COMMANDS)
def test_inputs_that_disagree_in_a_named_dimension(
    here: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command, "free.onnx", "--input", "x=x.npy", "--shape", "z=4,8") == 1
    error = capsys.readouterr().err
    assert "dimension 'N'" in error
    assert "expected 5 as in axis 0 of input 'x', got 4 in axis 0 of input 'z'" in error


@pytest.mark.parametrize("command", COMMANDS[:-1])
@pytest.mark.parametrize(
    ("shape", "reason"), [("x=3000,8", "it runs in stages"), ("x=3,8", "the values of x, limit")]
)
def test_models_without_a_single_plan(
    here: Path, command: str, shape: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command, "staged.onnx", "--shape", shape) == 1
    error = capsys.readouterr().err
    assert "there is no single plan of 'g' to look at" in error
    assert reason in error
    assert "`asyncnet run` takes it" in error


@pytest.mark.parametrize(("rows", "n_stages"), [(3000, 2), (3, 1)])
def test_they_run_all_the_same(
    here: Path, rows: int, n_stages: int, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["staged.onnx", "--shape", f"x={rows},8", "--compare", "onnxruntime"]
    assert call("run", *given) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["stages"] == n_stages
    assert answer["onnxruntime"]["sums"]["equal"]
    assert (answer["steps"] > 0) == (n_stages == 2)
    assert main(["run", *given, "--backend", "cpu"]) == 0
    assert ("in 2 stages" in " ".join(capsys.readouterr().out.split())) == (n_stages == 2)
