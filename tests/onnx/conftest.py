"""Prints the score of the backend suite at the end of the session."""

from __future__ import annotations

import pytest
from helpers.onnx_suite import score


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    wanted = ("passed", "failed", "error", "xfailed")
    outcomes = [
        (report.nodeid, outcome)
        for outcome in wanted
        for report in terminalreporter.stats.get(outcome, ())
    ]
    for line in score(outcomes):
        terminalreporter.write_line(line)
