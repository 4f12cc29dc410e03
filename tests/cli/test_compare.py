"""``asyncnet compare``: the first node at which two backends or modes differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from onnx import parser

from asyncnet_gpu.cli import compare as command
from asyncnet_gpu.cli import main
from asyncnet_gpu.net import AsyncNet

NETS = '''
import itertools

import numpy as np

import asyncnet_gpu as ag

def clean():
    net = ag.AsyncNet("clean")
    x = net.input("x", (4, 4), "float32")
    a = net.relu(x, name="a")
    b = net.exp(a, name="b")
    left, right = net.split(b, parts=2, axis=0, name=["left", "right"])
    net.barrier(left, right)
    net.output(net.add(left, right, name="y"))
    return net

def unsteady():
    """The node `drift` gives another answer each time it is asked."""
    count = itertools.count()
    net = ag.AsyncNet("unsteady")
    x = net.input("x", (4, 4), "float32")
    before = net.tanh(x, name="before")

    def fn(xp, array, out):
        xp.add(array, next(count), out=out)

    drift = net.call(fn, before, shape=(4, 4), dtype="float32", name="drift")
    net.output(net.mul(drift, drift, name="after"), net.exp(before, name="aside"))
    return net

def updating():
    net = ag.AsyncNet("updating")
    x = net.input("x", (4,), "float32")
    total = net.parameter("total", np.zeros(4, np.float32))
    net.output(net.assign(total, net.add(total, x, name="sum"), name="store"))
    return net
'''


@pytest.fixture
def nets(tmp_path: Path) -> str:
    path = tmp_path / "compared_nets.py"
    path.write_text(NETS)
    return str(path)


def compare_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["compare", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_modes_that_agree(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = compare_json(capsys, f"{nets}:clean")
    assert status == 0
    assert report["equal"]
    assert report["first"] is None
    assert (report["rtol"], report["atol"]) == (0, 0)
    assert list(report["outputs"]) == ["y"]
    assert main(["compare", f"{nets}:clean", "--runs", "1"]) == 0
    assert "nodes agree" in capsys.readouterr().out


def test_the_first_node_that_differs_is_named(
    nets: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = compare_json(capsys, f"{nets}:unsteady", "--runs", "1")
    assert status == 3
    first = report["first"]
    assert (first["node"], first["op"], first["index"]) == ("drift", "Call", 1)
    assert first["max_abs"] == pytest.approx(1, abs=1e-6)
    assert first["count"] == 16
    assert "compared_nets.py" in first["line"]
    assert report["values_apart"] == 2
    assert report["outputs"]["aside"]["equal"]
    assert main(["compare", f"{nets}:unsteady"]) == 3
    out = " ".join(capsys.readouterr().out.split())
    assert "first difference at node 2 of 4: Call 'drift' (before: float32[4, 4])" in out


def test_a_tolerance_can_hide_it(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = compare_json(capsys, f"{nets}:unsteady", "--atol", "1e6")
    assert status == 0
    assert report["outputs"]["after"]["max_abs"] > 0


def test_parameters_that_runs_update_stay_in_step(
    nets: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = compare_json(capsys, f"{nets}:updating", "--runs", "4")
    assert status == 0, report


def test_every_value_comes_in_topological_order(tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec(NETS, scope)
    net: AsyncNet = scope["clean"]()
    kept, makers = command.with_every_value(net)
    assert list(makers) == ["a", "b", "left", "right", "y"]
    assert sorted(makers.values()) == list(makers.values())
    assert list(net.outputs) == ["y"]  # the one given stays as it is
    assert set(kept.outputs) == set(makers)


@pytest.mark.parametrize("side", ["cpu:sideways", "tpu", "sim:serial"])
def test_unknown_sides_are_wrong_usage(
    side: str, nets: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", f"{nets}:clean", "--right", side]) == 2
    assert "BACKEND:MODE" in capsys.readouterr().err


MODEL = """
<ir_version: 9, opset_import: ["" : 18]>
agraph (float[2,4] x) => (y) {
    a = Relu (x)
    b = Exp (a)
    c = Tanh (b)
    y = Neg (c)
}"""


def test_against_onnxruntime(
    tmp_path: Path, nets: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(parser.parse_model(MODEL).SerializeToString())
    status, report = compare_json(capsys, str(path), "--right", "onnxruntime")
    assert status == 0
    assert report["rtol"] == command.RTOL
    status, report = compare_json(capsys, f"{nets}:clean", "--right", "onnxruntime")
    assert status == 0  # exported for the purpose
    run = command.onnxruntime_outputs

    def wrong_from_b_on(model: Any, arrays: Any) -> dict[str, Any]:
        found = run(model, arrays)
        assert set(found) == {"a", "b", "c", "y"}
        return {name: v if name == "a" else v + 1 for name, v in found.items()}

    monkeypatch.setattr(command, "onnxruntime_outputs", wrong_from_b_on)
    status, report = compare_json(capsys, str(path), "--right", "onnxruntime")
    assert status == 3
    assert (report["first"]["node"], report["first"]["op"]) == ("b", "Exp")
    assert report["values_apart"] == 3


@pytest.mark.gpu
def test_cuda_against_cpu(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = compare_json(capsys, f"{nets}:clean", "--right", "cuda:graph")
    assert status == 0, report
    assert (report["rtol"], report["atol"]) == (command.RTOL, command.ATOL)
