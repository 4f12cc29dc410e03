"""What the documentation shows is what happens: its code blocks run, and print what they say.

In a page, Python blocks run in order and share their names; one titled ``title="file.py"`` is
written into the working folder too. A ```text block right after one is what
it prints (``...`` stands for anything). ``asyncnet`` commands in ```bash blocks run too. A comment
before a block says otherwise: ``<!-- cuda -->`` needs a device, ``<!-- not run: why -->``.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asyncnet_gpu import cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("howto/*.md")], key=lambda p: p.name
)

FENCE = re.compile(
    r"^(?:<!-- (?P<mark>.+?) -->\n)?^```(?P<kind>\w+)(?P<info>[^\n]*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Block:
    kind: str
    text: str
    mark: str
    line: int
    title: str
    prints: str | None = None


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page; what a Python block prints is attached to it."""
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(page):
        line = page[: match.start("text")].count("\n")
        if match["kind"] == "text" and found and not page[end : match.start()].strip():
            found[-1].prints = match["text"]
        else:
            title = re.search(r'title="(\S+)"', match["info"])
            mark, name = match["mark"] or "", title[1] if title else ""
            found.append(Block(match["kind"], match["text"], mark, line, name))
        end = match.end()
    return found


def run_python(block: Block, path: str, names: dict[str, Any]) -> None:
    code = compile("\n" * block.line + block.text, path, "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    if block.prints is not None:
        got, wanted = printed.getvalue(), block.prints
        assert doctest.OutputChecker().check_output(wanted, got, LOOSE), (
            f"{path}:{block.line}: the page says\n{wanted}\nbut it printed\n{got}"
        )


def commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["asyncnet"]:
            yield words[1:]


def run_page(text: str, path: str, *, cuda: bool) -> int:
    """Run the blocks of a page; returns how many."""
    names: dict[str, Any] = {"__name__": "__main__"}
    n_run = 0
    for block in blocks(text):
        if block.mark.startswith("not run: ") or (block.mark == "cuda" and not cuda):
            continue
        assert block.mark in ("", "cuda"), f"{path}:{block.line}: what is {block.mark!r}?"
        if block.title:
            Path(block.title).write_text(block.text)
        if block.kind == "python":
            run_python(block, path, names)
            n_run += 1
        elif block.kind == "bash":
            for arguments in commands(block.text):
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    status = cli.main(arguments)
                assert status == 0, f"{path}:{block.line}: {arguments}\n{printed.getvalue()}"
                n_run += 1
    return n_run


def has_python(page: Path) -> bool:
    return any(block.kind == "python" for block in blocks(page.read_text()))


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(page: Path) -> None:
    run_page(page.read_text(), str(page), cuda=False)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "page", [p for p in PAGES if "<!-- cuda -->" in p.read_text()], ids=lambda page: page.stem
)
def test_what_a_page_shows_of_cuda_runs(page: Path) -> None:
    run_page(page.read_text(), str(page), cuda=True)


def test_every_page_is_in_the_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text()
    pages = [p.relative_to(DOCS).as_posix() for p in PAGES if p.is_relative_to(DOCS)]
    assert not [page for page in pages if f": {page}\n" not in listed]


def test_the_reference_of_the_command_line_has_every_command() -> None:
    text = importlib.import_module("ci.mkdocs_hooks").commands()
    names = {command.name or command.callback.__name__ for command in registered()}
    assert names
    assert {f"## `asyncnet {name}`" for name in names} <= set(text.splitlines())


def registered() -> list[Any]:
    return cli.application().registered_commands


def test_the_pages_were_found() -> None:
    assert {"README", "index", "tutorial", "semantics"} <= {page.stem for page in PAGES}
    assert sum(has_python(page) for page in PAGES) >= 8


WRONG = {
    "raises": "```python\n1 / 0\n```\n",
    "prints something else": "```python\nprint('a')\n```\n\n```text\nb\n```\n",
    "no such command": "```bash\nasyncnet no-such-command\n```\n",
    "unknown mark": "<!-- skip -->\n```python\n1\n```\n",
}


@pytest.mark.parametrize("page", WRONG.values(), ids=WRONG)
def test_a_wrong_page_is_found(page: str) -> None:
    with pytest.raises((AssertionError, ZeroDivisionError)):
        run_page(page, "page.md", cuda=False)


def test_blocks_share_names_and_marks_are_heeded() -> None:
    page = (
        "```python\nx = 1\n```\ntext\n```python title='a'\nprint(x)\n```\n\n```text\n1\n```\n"
        "<!-- cuda -->\n```python\n1 / 0\n```\n<!-- not run: long -->\n```bash\nasyncnet no\n```\n"
    )
    assert run_page(page, "page.md", cuda=False) == 2
    with pytest.raises(ZeroDivisionError):
        run_page(page, "page.md", cuda=True)
