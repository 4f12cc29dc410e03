"""Calls in threads of their own, whose results and errors a test looks at."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a call; return its thread, and where its result or error will be."""
    results: list[Any] = []

    def target() -> None:
        try:
            results.append(call())
        except Exception as error:  # the test raises or compares it
            results.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread, results
