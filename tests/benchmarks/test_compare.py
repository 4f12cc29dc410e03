"""Comparing two results: a planted regression is found, drift of the machine and noise are not."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from asyncnet_gpu.cli import main
from benchmarks.suites.compare import FLOOR, compare

Document = dict[str, Any]


def document(seed: int, *, noise: float = 0.02, **factors: float) -> Document:
    """Return a result of one workload; a factor multiplies all times of a candidate."""
    rng = random.Random(seed)
    base = {"serial": 0.010, "streams": 0.006, "numpy": 0.020}
    candidates = {
        name: {
            "ours": name != "numpy",
            "seconds": [
                t * factors.get(name, 1.0) * factors.get("machine", 1.0) * rng.gauss(1, noise)
                for _ in range(21)
            ],
        }
        for name, t in base.items()
    }
    row = {"workload": "VEC", "data": "resident", "sizes": "n = 3", "candidates": candidates}
    overhead = [
        {"system": s, "us_per_step": t * factors.get("machine", 1.0) * f, "spread": 0.02}
        for s, t, f in (
            ("numpy loop, out=", 0.45, 1.0),
            ("asyncnet_gpu, inline", 0.50, factors.get("overhead", 1.0)),
        )
    ]
    return {"suites": {"grcuda": {"rows": [row]}, "overhead": {"rows": overhead}}}


def test_two_runs_of_the_same_code_agree() -> None:
    changes = compare(document(1), document(2))
    assert [c.name for c in changes if c.regressed or c.improved] == []
    assert {c.name for c in changes} == {
        "grcuda: VEC, serial", "grcuda: VEC, streams", "overhead: asyncnet_gpu, inline"
    }  # fmt: skip


@pytest.mark.parametrize("factor", [1.1, 1.3, 2.0])
def test_a_planted_regression_is_found(factor: float) -> None:
    changes = compare(document(1), document(2, streams=factor))
    assert [c.name for c in changes if c.regressed] == ["grcuda: VEC, streams"]
    assert changes[0].ratio == pytest.approx(factor, rel=0.04)


def test_a_gain_is_no_regression() -> None:
    changes = compare(document(1), document(2, streams=0.7))
    assert [c.name for c in changes if c.improved] == ["grcuda: VEC, streams"]
    assert not any(c.regressed for c in changes)


def test_a_slower_machine_is_no_regression() -> None:
    assert not any(c.regressed for c in compare(document(1), document(2, machine=1.8)))


def test_noise_raises_the_bar() -> None:
    changes = compare(document(1, noise=0.3), document(2, noise=0.3, streams=1.1))
    assert not any(c.regressed for c in changes)
    assert max(c.noise for c in changes) > FLOOR


def test_overhead_is_compared_with_the_bare_loop() -> None:
    changes = compare(document(1), document(2, overhead=1.4))
    assert [c.name for c in changes if c.regressed] == ["overhead: asyncnet_gpu, inline"]


def test_other_sizes_are_not_compared() -> None:
    new = copy.deepcopy(document(2, streams=3.0))
    new["suites"]["grcuda"]["rows"][0]["sizes"] = "n = 4"
    assert [c.name for c in compare(document(1), new)] == ["overhead: asyncnet_gpu, inline"]


def test_the_command_exits_with_3_on_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, same, worse = (tmp_path / f"{n}.json" for n in ("old", "same", "worse"))
    old.write_text(json.dumps(document(1)))
    same.write_text(json.dumps(document(2)))
    worse.write_text(json.dumps(document(2, streams=1.5)))
    assert main(["bench", "--compare", str(old), str(same)]) == 0
    assert "slower" not in capsys.readouterr().out
    assert main(["bench", "--compare", str(old), str(worse)]) == 3
    assert "slower" in capsys.readouterr().out
    assert main(["bench", "--compare", str(old), str(tmp_path / "none.json")]) == 1
    assert "cannot read" in capsys.readouterr().err
