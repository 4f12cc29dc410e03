"""``asyncnet run``: outputs, files, JSON, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, parser

from asyncnet_gpu.cli import main
from asyncnet_gpu.cli.models import difference, summary

MODEL = """
<ir_version: 9, opset_import: ["" : 18]>
agraph (float[N,3] x, float[1] scale, int64[N] index) => (float[N,3] y, int64[N] same) {
    s = Mul (x, scale)
    y = Relu (s)
    same = Identity (index)
}"""

NET_FILE = """
import asyncnet_gpu as ag

def make():
    net = ag.AsyncNet("from_python")
    x = net.input("x", (2, 2), "float32")
    net.output(net.relu(x, name="y"))
    return net
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    made: ModelProto = parser.parse_model(MODEL)
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return str(path)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["run", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_random_inputs_are_seeded_and_fit_the_model(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = run_json(capsys, model, "--backend", "cpu", "--repeat", "2")
    assert status == 0
    assert report["inputs"]["x"] == {"dtype": "float32", "shape": [1, 3], "random": True}
    assert report["outputs"]["y"]["shape"] == [1, 3]
    assert report["outputs"]["same"]["dtype"] == "int64"
    assert report["runs"] == 2
    assert report["run_ms"] > 0
    again = run_json(capsys, model, "--backend", "cpu", "--seed", "0")[1]
    other = run_json(capsys, model, "--backend", "cpu", "--seed", "1")[1]
    assert again["outputs"] == report["outputs"] != other["outputs"]


def test_given_inputs_set_free_dimensions_of_the_others(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.array([[1, -2, 3], [4, 5, -6]], np.float32)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "outputs"
    status, report = run_json(
        capsys, model, "--input", f"x={tmp_path}/x.npy", "--input", "scale=2", "--out", str(out),
        "--backend", "cpu", "--mode", "streams",
    )  # fmt: skip
    assert status == 0
    assert report["mode"] == "streams"
    assert report["inputs"]["index"] == {"dtype": "int64", "shape": [2], "random": True}
    np.testing.assert_array_equal(np.load(report["files"]["y"]), np.maximum(2 * x, 0))
    assert sorted(p.name for p in out.iterdir()) == ["same.npy", "y.npy"]


def test_tables_name_inputs_outputs_and_times(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", model, "--backend", "cpu", "--shape", "x=4,3", "--repeat", "0"]) == 0
    out = capsys.readouterr().out
    # The free dimension that x and index share is set by the shape of either.
    for word in ("inputs", "outputs", "float32", "[4, 3]", "[4]", "random, seed 0", "first run"):
        assert word in out


def test_comparison_with_onnxruntime(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = run_json(capsys, model, "--backend", "cpu", "--compare", "onnxruntime")
    assert status == 0
    assert {entry["equal"] for entry in report["onnxruntime"].values()} == {True}


@pytest.mark.gpu
def test_on_cuda(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = run_json(
        capsys, model, "--backend", "cuda", "--mode", "graph", "--compare", "onnxruntime"
    )
    assert status == 0
    assert (report["backend"], report["mode"]) == ("cuda", "graph")


def test_a_difference_from_onnxruntime_is_status_3(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from asyncnet_gpu.cli import run

    def other(target: str, arrays: dict[str, Any]) -> dict[str, Any]:
        return {"y": np.maximum(arrays["x"] * arrays["scale"], 0) + 1, "same": arrays["index"]}

    monkeypatch.setattr(run, "onnxruntime_outputs", other)
    status, report = run_json(capsys, model, "--backend", "cpu", "--compare", "onnxruntime")
    assert status == 3
    assert report["onnxruntime"]["same"]["equal"]
    assert not report["onnxruntime"]["y"]["equal"]
    assert report["onnxruntime"]["y"]["max_abs"] == pytest.approx(1)
    assert main(["run", model, "--backend", "cpu", "--compare", "onnxruntime"]) == 3
    assert "DIFFERENT" in capsys.readouterr().out


def test_a_net_from_python_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nets.py").write_text(NET_FILE)
    status, report = run_json(capsys, f"{tmp_path}/nets.py:make", "--backend", "cpu")
    assert status == 0
    assert report["net"] == "from_python"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--input", "z=1"], 2, "x, scale, index"),
        (["--input", "x=nowhere.npy"], 2, "no such file"),
        (["--compare", "tensorflow"], 2, "only onnxruntime"),
        (["--backend", "tpu"], 1, "tpu"),
        (["--backend", "sim"], 2, "computes nothing"),
        (["--mode", "sideways"], 1, "sideways"),
        (["--shape", "x=2,4"], 1, "input 'x'"),
        (["--shape", "x=a"], 2, "NAME=1,3,224,224"),
        (["--shape", "z=1"], 2, "expected one of x, scale, index"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: list[str], status: int, words: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", model, *arguments]) == status
    assert words in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_missing_or_broken_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tmp_path / "none.onnx")]) == 1
    assert capsys.readouterr().err.startswith("asyncnet: [cli]")
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff")
    assert main(["run", str(tmp_path / "broken.onnx")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("asyncnet: [onnx]")
    assert error.count("\n") == 1


def test_without_the_package_onnx_the_remedy_is_named(model: str) -> None:
    script = (
        "import sys; sys.modules['onnx'] = None\n"
        "from asyncnet_gpu.cli import main\n"
        "sys.exit(main(['run', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, model], capture_output=True, text=True, timeout=60,
        check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "pip install 'asyncnet-gpu[onnx]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_differences() -> None:
    a = np.array([1, np.nan, np.inf, 0], np.float32)
    assert difference(a, a, rtol=0, atol=0).equal
    b = np.array([1.5, np.nan, np.inf, 0], np.float32)
    found = difference(a, b, rtol=0, atol=0)
    assert (found.equal, found.count, found.max_abs) == (False, 1, 0.5)
    assert found.max_rel == pytest.approx(1 / 3)
    assert difference(a, b, rtol=0, atol=0.5).equal
    assert not difference(a, np.zeros(4, np.float32), rtol=1, atol=1).equal  # NaN against 0
    assert not difference(-a, a, rtol=1, atol=1).equal  # -inf against inf
    assert difference(a, a[:2], rtol=0, atol=0).to_dict()["max_abs"] is None
    integers = np.array([2**63 - 1, 5], np.int64)
    assert not difference(integers, integers - 1, rtol=0, atol=0).equal
    assert difference(np.zeros((0, 2)), np.zeros((0, 2)), rtol=0, atol=0).equal


def test_summaries() -> None:
    assert summary(np.zeros((0, 3))) == "empty"
    assert summary(np.array([1, 2])) == "[1, 2]"
    assert "1 not finite" in summary(np.array([np.inf, *range(9)]))
