"""``asyncnet inspect``: operators of the file, supported or not, and the shape of the net."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from onnx import parser

from asyncnet_gpu.cli import inspect as command
from asyncnet_gpu.cli import main

WIDE = """
<ir_version: 9, opset_import: ["" : 18], producer_name: "by hand">
agraph (float[N,4] x) => (float[N,4] y)
    <float[4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}> {
    a = MatMul (x, w)
    b = MatMul (x, w)
    c = MatMul (x, w)
    ab = Add (a, b)
    y = Add (ab, c)
}"""

UNSUPPORTED = """
<ir_version: 9, opset_import: ["" : 18, "com.example" : 1, "own" : 1]>
agraph (float[N] x, bool c) => (float[N] y) {
    z = own.twice (x)
    y = If (c) <
        then_branch = t () => (a) { a = com.example.Mystery (z) },
        else_branch = e () => (b) { b = Relu (z) }
    >
}
<domain: "own", opset_import: ["" : 18]>
twice (a) => (b) { b = Add (a, a) }"""


def save(tmp_path: Path, text: str) -> str:
    path = tmp_path / "model.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    return str(path)


def inspect_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["inspect", *arguments, "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_a_model_is_counted_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = inspect_json(capsys, save(tmp_path, WIDE), "--shape", "x=2,4")
    assert report["operators"] == [
        {"name": "MatMul", "count": 3, "support": "yes"},
        {"name": "Add", "count": 2, "support": "yes"},
    ]
    assert report["unsupported"] == []
    assert report["inputs"] == {"x": {"dtype": "float", "shape": ["N", 4]}}
    assert report["opsets"] == {"ai.onnx": 18}
    assert report["producer"] == "by hand"
    net = report["net"]
    assert net["inputs"] == {"x": "float32[2, 4]"}
    assert net["nodes"] == 5
    assert net["widest_antichain"] == 3
    assert 1 < net["work_over_span"] < 3
    assert net["parameter_bytes"] == 4 * 4 * 4
    assert 0 < net["arena_bytes"]["serial"] <= net["arena_bytes"]["streams"]


def test_unsupported_operators_are_listed_wherever_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, UNSUPPORTED)
    report = inspect_json(capsys, path)
    assert report["unsupported"] == ["com.example::Mystery"]
    counts = {entry["name"]: entry["count"] for entry in report["operators"]}
    assert counts == {
        "own::twice": 1, "If": 1, "com.example::Mystery": 1, "Relu": 1, "Add": 1
    }  # fmt: skip
    assert report["net"] is None
    assert "Mystery" in report["problem"]
    assert main(["inspect", path]) == 0
    out = capsys.readouterr().out
    assert "NO" in out
    assert "not loaded:" in out


def test_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", save(tmp_path, WIDE)]) == 0
    out = capsys.readouterr().out
    for word in ("MatMul", "[N, 4]", "widest antichain", "work / span", "arena, streams"):
        assert word in out


def test_a_net_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nets.py").write_text(
        "import asyncnet_gpu as ag\n"
        "def make():\n"
        "    net = ag.AsyncNet('pair')\n"
        "    x = net.input('x', (4,), 'float32')\n"
        "    net.output(net.relu(x, name='r'), net.exp(x, name='e'))\n"
        "    return net\n"
    )
    report = inspect_json(capsys, f"{tmp_path}/nets.py:make")
    assert report["net"]["operators"] == {"Exp": 1, "Relu": 1}
    assert report["net"]["widest_antichain"] == 2


def test_a_file_that_is_no_model_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\xff")
    assert main(["inspect", str(tmp_path / "broken.onnx")]) == 1
    assert capsys.readouterr().err.startswith("asyncnet: [onnx]")
    assert main(["inspect", str(tmp_path / "nowhere.json")]) == 1


@pytest.mark.parametrize("seed", range(20))
def test_widest_antichain_against_all_subsets(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(1, 9)
    before = [[p for p in range(i) if rng.random() < 0.3] for i in range(n)]
    reach = [set(edges) for edges in before]
    for node in range(n):
        for p in before[node]:
            reach[node] |= reach[p]
    widest = max(
        size
        for size in range(1, n + 1)
        for chosen in itertools.combinations(range(n), size)
        if all(a not in reach[b] for a, b in itertools.combinations(chosen, 2))
    )
    assert command.widest_antichain(before) == widest


def test_a_net_too_large_to_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MAX_PAIRS", 5)
    assert command.widest_antichain([[], [0], [1], [2]]) is None
