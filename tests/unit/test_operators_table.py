"""The committed table of operators says what the definitions say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from asyncnet_gpu import ops

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("operators_table", ROOT / "ci/operators_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_current(maker: ModuleType) -> None:
    committed = (ROOT / "docs/operators.md").read_text()
    # Compared line by line, so that the difference is readable.
    assert committed.splitlines() == maker.table().splitlines(), (
        "docs/operators.md is out of date: run `python -m ci.operators_table` and commit it"
    )


def test_every_operator_has_a_row_that_can_be_called_as_it_says(maker: ModuleType) -> None:
    rows = maker.table()
    for name, op in ops.registry().items():
        assert f"| `{name}(" in rows
        low, high = op.n_inputs
        names = maker.inputs(op)
        if high is not None:
            assert len(names) == high
            assert sum("=" not in n for n in names) == low
        assert len(set(names)) == len(names)


def test_rows_of_some_kinds(maker: ModuleType) -> None:
    lines = {line.split("(")[0]: line for line in maker.table().splitlines()}
    assert lines["| `relu"].startswith("| `relu(x)` | float, integer | over `x` | kernel | Relu |")
    assert "| `matmul(a, b)` | " in lines["| `matmul"]
    assert "library, kernel" in lines["| `matmul"]
    assert "| view |" in lines["| `reshape"]
    assert "updates `w`" in lines["| `assign"]
    assert "kernel, strides=" in lines["| `max_pool"]
    assert "bias=None, *, strides=" in lines["| `conv2d"]
