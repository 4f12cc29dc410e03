"""The command line: ``asyncnet`` or ``python -m asyncnet_gpu``. One command a file, found by file.

A command module has ``add(app)``, which registers one function on the Typer application. Exit
codes: 0 done; 1 an error of this library, one line on stderr; 2 wrong usage; 3 the command ran and
its answer is no (outputs differ, a plan refused, a regression).
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence

import typer

from asyncnet_gpu.errors import AsyncNetError

__all__ = ["application", "main"]


def application() -> typer.Typer:
    """Return the application with every command of this folder."""
    app = typer.Typer(
        name="asyncnet", no_args_is_help=True, rich_markup_mode="rich",
        help="Nets of operators on streams: run, plan, prove, measure and explain them.",
        pretty_exceptions_show_locals=False,
    )  # fmt: skip
    app.callback()(_root)
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        module = importlib.import_module(f"{__name__}.{found.name}")
        if hasattr(module, "add"):
            module.add(app)
    return app


def _root() -> None:
    """Nets of operators on streams: run, plan, prove, measure and explain them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    try:
        application()(args=arguments, standalone_mode=True)
    except AsyncNetError as error:
        print(f"asyncnet: {error}", file=sys.stderr)
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
