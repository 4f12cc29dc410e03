"""``asyncnet bench`` as people call it; tables, Markdown, picture; overhead and requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asyncnet_gpu.cli import main
from benchmarks.suites import runner
from benchmarks.suites.measure import Options
from benchmarks.suites.overhead import measure_overhead
from benchmarks.suites.report import HOST_ONLY, draw, grids, to_markdown
from benchmarks.suites.runner import chosen_workloads, run


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return run(["grcuda"], Options(scale=0.002, rounds=3, seconds=0.1), only=["VEC", "HITS"])


def test_the_command_writes_all_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(tmp_path / name) for name in ("out.json", "out.md", "out.png")]
    words = ["bench", "--backend", "cpu", "--suite", "launch", "--scale", "0.05", "--rounds", "2"]
    words += ["--seconds", "0.1"]
    assert main([*words, "--json", paths[0], "--markdown", paths[1], "--picture", paths[2]]) == 0
    printed = capsys.readouterr().out
    assert "eight chains" in printed
    written = json.loads(Path(paths[0]).read_text())
    assert written["backend"] == "cpu"
    assert [r["workload"] for r in written["suites"]["launch"]["rows"]] == ["chain", "eight chains"]
    assert "| eight chains |" in Path(paths[1]).read_text()
    assert Path(paths[2]).read_bytes().startswith(b"\x89PNG")
    assert main(["bench", "--compare", paths[0], paths[0]]) == 0


def test_json_on_stdout_is_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--backend", "cpu", "--suite", "grcuda", "--only", "VEC", "--scale", "0.001"]
    assert main([*words, "--rounds", "2", "--seconds", "0.1", "--json", "-", "--no-rivals"]) == 0
    rows = json.loads(capsys.readouterr().out)["suites"]["grcuda"]["rows"]
    assert rows[0]["candidates"].keys() == {"serial", "streams", "graph-serial", "graph", "auto"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "nonsense"], "no suite 'nonsense'"),
        (["--only", "nonsense"], "no workload 'nonsense' in grcuda"),
        (["--suite", "overhead", "--only", "VEC"], "no workload 'VEC' in overhead"),
        (["--backend", "tpu"], "backend='tpu'"),
    ],
)
def test_wrong_words_are_named(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 1
    assert said in capsys.readouterr().err


def test_the_case_of_a_workload_does_not_matter() -> None:
    assert chosen_workloads(["grcuda"], ["vec", "B&S"]) == ["VEC", "B&S"]


def test_a_result_says_where_it_comes_from(document: dict[str, Any]) -> None:
    assert document["schema"] == 1
    assert document["machine"]["cores"] >= 1
    assert document["versions"]["numpy"]
    assert document["seed"] == 0
    assert document["gpu_state"] is None
    json.dumps(document)


def test_tables_have_a_row_for_each_workload(document: dict[str, Any]) -> None:
    (grid,) = grids(document)
    assert [row[0] for row in grid.rows] == ["VEC", "HITS"]
    assert all(len(row) == len(grid.heads) for row in grid.rows)
    text = to_markdown(document)
    assert "### grcuda: speed-up over serial" in text
    assert "same bits" not in text
    assert "bit by bit" in text


def test_without_a_gpu_no_device_time_is_printed(document: dict[str, Any]) -> None:
    bare = {**document, "backend": "cuda", "host_only": True}
    row = {**document["suites"]["grcuda"]["rows"][0]}
    row["candidates"] = {"serial": {"ours": True, "note": "", "host_ms": 0.5}}
    bare["suites"] = {"grcuda": {"rows": [row]}}
    (grid,) = grids(bare)
    assert grid.notes == (HOST_ONLY,)
    assert grid.rows == (("VEC, resident", "500"),)
    with pytest.raises(Exception, match="nothing to draw"):
        draw(bare, Path("never.png"))


def test_overhead_names_every_system_and_checks_their_answers() -> None:
    rows, absent = measure_overhead(Options(rounds=2, seconds=0.1))
    found = {row["system"]: row for row in rows}
    for name in ("numpy loop, out=", "asyncnet_gpu, inline", "asyncnet_gpu, thread",
                 "asyncnet_gpu, submit", "concurrent.futures"):  # fmt: skip
        assert found[name]["us_per_step"] > 0
    assert found["asyncnet_gpu, inline"]["over_inline"] == 1.0
    assert not found.keys() & absent.keys()
    assert (found | absent).keys() >= {"dask.threaded", "onnxruntime", "torch, eager"}


def test_requests_in_flight_are_checked() -> None:
    document = run(["requests"], Options(scale=0.2, rounds=1))
    rows = document["suites"]["requests"]["rows"]
    assert {(r["mode"], r["in_flight"]) for r in rows} == {
        (m, k) for m in ("serial", "streams") for k in (1, 2, 4, 8)
    }
    assert all(r["requests_per_s"] > 0 and r["latency_p50_ms"] > 0 for r in rows)
    assert grids(document)[0].rows


def test_all_means_every_suite() -> None:
    assert runner.chosen_suites(["all"]) == list(runner.SUITES)
    assert runner.chosen_suites(["overhead", "grcuda"]) == ["grcuda", "overhead"]
