"""Which of these tests can run here: those marked browser need Chromium."""

from __future__ import annotations

import pytest
from helpers.chromium import find_chromium

_DROPPED = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs a browser where there is none, unless the command line asks for it."""
    dropped = [item for item in items if item.get_closest_marker("browser")]
    if not dropped or find_chromium() is not None:
        return
    if (config.getoption("markexpr") or "").strip() == "browser":
        raise pytest.UsageError("-m browser asks for Chromium: there is none on the path")
    config.stash[_DROPPED] = len(dropped)
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    n = config.stash.get(_DROPPED, 0)
    if n:
        line = f"browser: {n} tests not run, deselected: Chromium needed"
        terminalreporter.write_line(line, yellow=True)
