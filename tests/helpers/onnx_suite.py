"""ONNX's own backend test suite, as a list of tests and as a score."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import onnx

#: Name of a category in the suite to the name under which its score is published.
CATEGORIES = {
    "NodeModel": "node", "SimpleModel": "simple", "RealModel": "real (light)",
    "PyTorchConvertedModel": "pytorch-converted", "PyTorchOperatorModel": "pytorch-operator",
}  # fmt: skip


class SuiteTest(NamedTuple):
    """One test on one kind of device."""

    category: str
    name: str
    run: Callable[[], Any]


@cache
def _items() -> Any:
    """Return the suite's tests by category and name; making them takes seconds."""
    import onnx.backend.test

    from asyncnet_gpu.onnx.backend import AsyncNetBackend

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite computes its expected values, infinities too
        return onnx.backend.test.BackendTest(AsyncNetBackend, __name__)._test_items


@cache
def suite_tests(device: str) -> tuple[SuiteTest, ...]:
    """Return every test of the suite for a device, "cpu" or "cuda", in the order of names."""
    found = []
    for category, tests in _items().items():
        for name, item in tests.items():
            if name.endswith(f"_{device}"):
                plain = name.removesuffix(f"_{device}")
                found.append(SuiteTest(category, plain, lambda f=item.func: f(None)))
    return tuple(sorted(found, key=lambda t: (t.category, t.name)))


def score(outcomes: Iterable[tuple[str, str]]) -> list[str]:
    """Return lines that say how many tests of each category and device passed.

    Parameters
    ----------
    outcomes
        Identifier of a test, ``...[device-category-name]``, and what became of it.
    """
    passed: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for identifier, outcome in outcomes:
        found = re.search(r"\[(cpu|cuda)-(\w+)-\w+\]$", identifier)
        if found:
            total[found.groups()] += 1
            passed[found.groups()] += outcome == "passed"
    return [
        f"onnx {onnx.__version__} backend suite, {device}, {CATEGORIES.get(category, category)}: "
        f"{passed[device, category]:,} of {count:,} passed"
        for (device, category), count in sorted(total.items())
    ]
