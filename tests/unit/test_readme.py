"""The tables of the README name what there is, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from asyncnet_gpu import backends
from asyncnet_gpu.cli import application
from asyncnet_gpu.plan.types import MODES

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def first_cells(heading: str) -> set[str]:
    """Return the words in backquotes in the first column of the table under a heading."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def test_modes() -> None:
    assert first_cells("Modes") == {*MODES, "auto"}


def test_backends() -> None:
    assert first_cells("Backends") == {*backends.available(), "auto"}


def test_commands() -> None:
    named = {word.removeprefix("asyncnet ") for word in first_cells("Command line")}
    group = typer.main.get_command(application())
    assert named == set(group.commands)  # type: ignore[attr-defined]


def test_the_example_has_about_twenty_lines_and_files_that_are_linked_exist() -> None:
    example = README.split("```python\n", 1)[1].split("```", 1)[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 21
    root = Path(__file__).resolve().parents[2]
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (root / target).exists(), target
