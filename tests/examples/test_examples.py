"""Every program in examples/ runs on every backend, and what it computes is right."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DATA = Path(__file__).resolve().parent / "data"

on_each = pytest.mark.parametrize("backend", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def run(name: str, *args: Any, **options: Any) -> dict[str, Any]:
    return importlib.import_module(f"examples.{name}").main(*args, **options)


@on_each
def test_plain_arrays(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = run("plain_arrays", backend)
    x, a, b = (made[name].astype(np.float64) for name in "xab")
    expected = np.maximum(x @ a, 0) + np.tanh(x @ b)
    np.testing.assert_allclose(made["y"], expected, rtol=1e-4, atol=1e-3)
    printed = capsys.readouterr().out
    assert "on 2 streams" in printed
    assert "ordered: they may overlap" in printed


@on_each
def test_own_kernel(backend: str) -> None:
    made = run("own_kernel", backend)
    for name, rate in (("calm", 2.8), ("wild", 3.5)):
        value = made["x"].astype(np.float64)
        for _ in range(20):
            value = rate * value * (1 - value)
        np.testing.assert_allclose(made[name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("backend", "devices"),
    [
        ("cpu", None),
        ("cpu", [0, 0]),
        pytest.param("cuda", [0, 0], marks=pytest.mark.gpu),
        pytest.param("cuda", None, marks=pytest.mark.multigpu),
    ],
)
def test_several_devices(backend: str, devices: list[int] | None) -> None:
    made = run("several_devices", backend, devices)
    x = made["x"].astype(np.float64)
    expected = np.repeat((np.sin(x) + np.cos(x)).mean(axis=1, keepdims=True), x.shape[1], axis=1)
    np.testing.assert_allclose(made["total"], expected, rtol=1e-4, atol=1e-5)


@on_each
def test_asyncio_service(backend: str) -> None:
    made = run("asyncio_service", backend)
    *replies, bad = made["replies"]
    net = importlib.import_module("examples.asyncio_service").make_net()
    with net.compile(backend="cpu", mode="serial") as oracle:
        for row, reply in zip(made["rows"], replies, strict=True):
            assert reply == {"class": int(oracle.run(x=row[None])["probability"].argmax())}
    assert len({reply["class"] for reply in replies}) > 1
    assert "expected float32[1, 256], got float32[1, 2]" in bad["error"]


@on_each
def test_barriers(backend: str) -> None:
    made = run("barriers", backend)
    assert made["reached"]
    assert made["why"].startswith("second waits for low: 'measured' waits for 'low'")
    x = made["x"].astype(np.float64)
    low, high = np.exp(np.minimum(x, 0)), np.exp(np.maximum(x, 0))
    expected = low / low.sum(axis=1, keepdims=True) - high / high.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(made["y"], expected, rtol=1e-4, atol=1e-6)


@on_each
def test_photograph(backend: str, tmp_path: Path) -> None:
    from PIL import Image

    made = run("photograph", backend, out=tmp_path)
    image = made["image"]
    height, width = image.shape[2:]
    thumbnail = image.reshape(1, 3, height // 4, 4, width // 4, 4).mean(axis=(3, 5))
    np.testing.assert_allclose(ag.to_numpy(made["thumbnail"]), thumbnail, rtol=1e-5, atol=1e-6)
    rows = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), "edge").astype(np.float64)
    smooth = rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    across = smooth[..., 2:] - smooth[..., :-2]
    smooth = rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]
    down = smooth[:, :, 2:] - smooth[:, :, :-2]
    sketch = np.clip(1 - np.hypot(across, down), 0, 1)
    np.testing.assert_allclose(ag.to_numpy(made["sketch"]), sketch, atol=1e-4)
    with Image.open(tmp_path / "sharp.png") as picture:
        assert picture.size == (width, height)


@on_each
@pytest.mark.package("basic_pitch", "onnxruntime")
def test_tensorflow_model(backend: str) -> None:
    made = run("tensorflow_model", backend)
    assert made["heard"] == (57, 61, 64)
    for name, expected in made["theirs"].items():
        # ONNX Runtime differs from itself by 9e-5 between its own levels of optimisation.
        np.testing.assert_allclose(made["ours"][name], expected, rtol=0, atol=3e-4)


@on_each
def test_what_pytorch_exported(backend: str) -> None:
    """The model and PyTorch's numbers as recorded: no PyTorch needed (see record_block.py)."""
    recorded = np.load(DATA / "block.npz")
    module = importlib.import_module("examples.pytorch_model")
    ours = module.run(DATA / "block.onnx", recorded["x"], backend)
    np.testing.assert_allclose(ours, recorded["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.package("torch", "onnxscript")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_pytorch_model() -> None:
    made = run("pytorch_model")
    np.testing.assert_allclose(made["ours"], made["theirs"], rtol=1e-5, atol=1e-6)
    recorded = np.load(DATA / "block.npz")
    np.testing.assert_array_equal(made["x"], recorded["x"])
    np.testing.assert_allclose(made["theirs"], recorded["y"], rtol=1e-5, atol=1e-6)


# -- the form of the examples ----------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_how_to_run_it_and_is_tested(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# Run with:  python examples/{path.name} ")
    assert ast.get_docstring(ast.parse(text)), "an example says what it shows"
    assert f"def test_{path.stem}(" in Path(__file__).read_text()


def test_an_example_runs_as_a_program() -> None:
    ended = subprocess.run(
        [sys.executable, "examples/barriers.py", "--backend", "cpu"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert "both branches of the first phase are done" in ended.stdout
