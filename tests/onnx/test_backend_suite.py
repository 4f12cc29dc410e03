"""ONNX's own backend test suite runs against us, whole on the CPU and a fixed sample on CUDA.

What is declared in `helpers.onnx_exclusions` is run too and has to fail. With
``ASYNCNET_ONNX_SUITE=all`` the sample on CUDA is the whole suite.
"""

import math
import os
import re

import pytest
from helpers.onnx_exclusions import EXCLUSIONS, exclusion
from helpers.onnx_suite import suite_tests

# What the suite feeds on purpose: infinities, NaN, zero in a denominator.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:(invalid value|divide by zero|overflow) encountered:RuntimeWarning"
)

#: Tests in the sample on CUDA.
SAMPLE = 360


def params(device):
    return list(_params(device))


def _params(device):
    tests = suite_tests(device)
    if device == "cuda" and os.environ.get("ASYNCNET_ONNX_SUITE") != "all":
        tests = [t for t in tests if exclusion(t.name, device) is None]
        tests = tests[:: math.floor(len(tests) / SAMPLE)]
    for test in tests:
        declared = exclusion(test.name, device)
        marks = () if declared is None else (pytest.mark.xfail(strict=True, reason=declared.reason))
        yield pytest.param(test, id=f"{device}-{test.category}-{test.name}", marks=marks)


@pytest.fixture(scope="session")
def onnx_home(tmp_path_factory):
    """Where the suite puts the models that it brings along."""
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(autouse=True)
def _home(onnx_home, monkeypatch):
    monkeypatch.setenv("ONNX_HOME", str(onnx_home))


@pytest.mark.parametrize("test", params("cpu"))
def test_suite_on_the_cpu(test):
    test.run()


@pytest.mark.gpu
@pytest.mark.parametrize("test", params("cuda"))
def test_suite_on_cuda(test):
    test.run()


@pytest.mark.parametrize("declared", EXCLUSIONS, ids=lambda e: e.pattern)
def test_every_exclusion_excludes_something(declared):
    assert any(re.fullmatch(declared.pattern, test.name) for test in suite_tests("cpu"))
