"""Parts of the documentation that are made when it is built, so that they cannot grow stale.

The command line from the Typer application; the lists of decisions and of benchmark results from
the files that are there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def commands() -> str:
    """Return what `asyncnet --help` and the help of each command say, as Markdown."""
    import typer.cli

    from asyncnet_gpu.cli import application

    command = typer.main.get_command(application())
    with command.make_context("asyncnet", [], resilient_parsing=True) as context:
        text = typer.cli.get_docs_for_click(obj=command, ctx=context, name="asyncnet")
    # Help texts may hold Rich's marks for bold, as the terminal shows them.
    text = re.sub(r"\[/?bold\]", "**", text)
    text = re.sub(r"^asyncnet ", "    asyncnet ", text, flags=re.M)  # an example: as code
    return text.partition("\n")[2].replace("# `asyncnet`", "").strip()


def decisions() -> str:
    """Return a list of the decisions, by number."""
    rows = []
    for path in sorted((ROOT / "docs/decisions").glob("[0-9]*.md")):
        title = re.sub(r"^[#\d. ]+", "", path.read_text().partition("\n")[0])
        rows.append(f"- [{path.stem[:4]}]({path.name}) {title}")
    return "\n".join(rows)


def results() -> str:
    """Return a list of the files of results and of the machines they come from."""
    rows = ["| file | machine |", "| --- | --- |"]
    for path in sorted((ROOT / "benchmarks/results").glob("*.json")):
        found = json.loads(path.read_text())
        machine = found.get("machine", {}) if isinstance(found, dict) else {}
        words = ", ".join(f"{k} {v}" for k, v in machine.items() if isinstance(v, str | int))
        rows.append(f"| `benchmarks/results/{path.name}` | {words or 'not noted'} |")
    return "\n".join(rows)


MADE = {"<!-- commands -->": commands, "<!-- decisions -->": decisions, "<!-- results -->": results}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is made into the pages that ask for it."""
    for mark, make in MADE.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown
