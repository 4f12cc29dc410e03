"""``asyncnet verify``: nets and stored plans are proven, broken ones refused with status 3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.cli_nets import write_nets

from asyncnet_gpu.cli import main


@pytest.fixture
def towers(tmp_path: Path) -> str:
    return f"{write_nets(tmp_path)}:towers"


@pytest.fixture
def stored(towers: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["plan", towers, "--allocator", "exact", "--json"]) == 0
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    return made


@pytest.mark.parametrize("mode", ["serial", "streams", "graph"])
def test_a_net_is_proven(towers: str, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", towers, "--mode", mode]) == 0
    assert "proven" in capsys.readouterr().out
    assert main(["verify", towers, "--mode", mode, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["proven"] is True
    assert answer["counter_example"] is None
    assert answer["steps"] == 13


def verify_file(
    stored: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, Any]]:
    file = folder / "plan.json"
    file.write_text(json.dumps(stored))
    status = main(["verify", str(file), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_stored_plan_is_proven(
    stored: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, answer = verify_file(stored, tmp_path, capsys)
    assert (status, answer["proven"]) == (0, True)
    assert answer["waits"] == sum(len(step["waits"]) for step in stored["steps"]) > 0


def drop_a_wait(stored: dict[str, Any]) -> None:
    next(step for step in stored["steps"] if step["waits"])["waits"].pop()


def share_bytes(stored: dict[str, Any]) -> None:
    for storage in stored["storages"]:
        if storage["offset"] is not None:
            storage["offset"] = 0


def leave_the_arena(stored: dict[str, Any]) -> None:
    next(s for s in stored["storages"] if s["offset"] is not None)["offset"] = 1 << 30


def swap_steps(stored: dict[str, Any]) -> None:
    of_first = [i for i, step in enumerate(stored["steps"]) if step["stream"] == 0]
    a, b = of_first[:2]
    steps = stored["steps"]
    steps[a]["node"], steps[b]["node"] = steps[b]["node"], steps[a]["node"]


def wait_for_nobody(stored: dict[str, Any]) -> None:
    stored["steps"][0]["waits"] = [0]


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a wait is gone": (drop_a_wait, "no path of stream order and events"),
    "storages share bytes": (share_bytes, "share bytes and no path"),
    "outside the arena": (leave_the_arena, "lies outside the arena"),
    "out of order": (swap_steps, "which the other writes"),
    "an event nobody recorded": (wait_for_nobody, "no earlier step records it"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plan_is_refused_with_a_counter_example(
    how: str, stored: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_it, words = BROKEN[how]
    break_it(stored)
    status, answer = verify_file(stored, tmp_path, capsys)
    assert status == 3
    assert answer["proven"] is False
    assert words in answer["counter_example"]
    assert main(["verify", str(tmp_path / "plan.json")]) == 3
    assert "refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema 2"),
        ({"mode": "fast"}, "mode 'fast'"),
        ({"steps": [{"node": 0}]}, "KeyError"),
        ({"storages": None}, "TypeError"),
    ],
)
def test_what_is_no_plan_is_an_error(
    change: dict[str, Any], words: str, stored: dict[str, Any], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({**stored, **change}))
    assert main(["verify", str(file)]) == 1
    assert words in capsys.readouterr().err


def test_a_file_that_is_no_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    file.write_text("{")
    assert main(["verify", str(file)]) == 1
    assert "expected JSON" in capsys.readouterr().err
