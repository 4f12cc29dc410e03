"""The command line: ``asyncnet`` or ``python -m asyncnet_gpu``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from asyncnet_gpu.errors import AsyncNetError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="asyncnet", description="Nets of operators on streams.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="run the main job on real input and draw a timeline")
    demo.add_argument("--backend", default="cpu", help="cpu, cuda, sim or auto (default: cpu)")
    demo.add_argument("--out", default="build/demo", help="folder for the pictures")
    demo.add_argument("--rounds", type=int, default=9, help="timed runs of each mode")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    from asyncnet_gpu.demo import run_demo

    try:
        run_demo(backend=options.backend, folder=options.out, rounds=options.rounds)
    except AsyncNetError as error:
        print(f"asyncnet: {error}", file=sys.stderr)
        return 1
    return 0
