"""Tests marked `package` run where the packages they name are installed; elsewhere they count."""

from __future__ import annotations

import importlib.util

import pytest

NOT_RUN = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[NOT_RUN] = []
    config.addinivalue_line(
        "markers", "package(*names): needs these; deselected, and counted, where one is missing"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, dropped = [], []
    for item in items:
        names = [name for mark in item.iter_markers("package") for name in mark.args]
        missing = [name for name in names if importlib.util.find_spec(name) is None]
        if missing:
            dropped.append(item)
            config.stash[NOT_RUN].append(f"{item.name}: {', '.join(missing)} not installed")
        else:
            kept.append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in terminalreporter.config.stash[NOT_RUN]:
        terminalreporter.write_line(f"examples: not run, deselected: {line}", yellow=True)
