"""Fixtures of the tests of the CUDA backend."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Keep the collector from freeing, while a device is stuck, what earlier tests left.

    The driver frees memory only when all devices are idle. What executables leave needs no
    freeing (see test_reclaim.py); arrays of a test's own may.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()
