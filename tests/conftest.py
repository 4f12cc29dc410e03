"""Fixtures and hooks only; never imported. Plain helper functions belong in `tests/helpers/`."""

from __future__ import annotations

import importlib.util
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import hypothesis
import pytest

# "ci" gives the same examples every time; "explore" others every time, by a seed that is printed.
hypothesis.settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.register_profile(
    "explore", derandomize=False, deadline=None, max_examples=1000, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# The control module of the software CUDA devices; importable only where the run uses them.
if importlib.util.find_spec("softcuda"):
    import softcuda
else:
    softcuda = None


def count_devices() -> tuple[int, str]:
    """Return the number of CUDA devices that answer, and a line that says what was found."""
    if importlib.util.find_spec("cupy") is None:
        return 0, "CuPy is not installed"
    import cupy

    if not cupy.is_available():
        return 0, f"CuPy {cupy.__version__} finds no device"
    n_devices = cupy.cuda.runtime.getDeviceCount()
    kind = "device" if softcuda is None else "software device"
    return n_devices, f"{n_devices} {kind}{'s' * (n_devices != 1)}, CuPy {cupy.__version__}"


@dataclass
class GpuTests:
    """What became of the tests marked gpu; empty in a run that collects none."""

    devices: str = ""
    deselected: dict[str, int] = field(default_factory=dict)  # why -> how many

    def lines(self) -> list[str]:
        found = [f"cuda: {self.devices}"] if self.devices else []
        return found + [
            f"cuda: {n} test{'s' * (n != 1)} not run, deselected: {why}"
            for why, n in self.deselected.items()
        ]


GPU_TESTS = pytest.StashKey[GpuTests]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[GPU_TESTS] = GpuTests()
    # Before Hypothesis reads the option.
    if not hypothesis.settings().derandomize and config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))


def pytest_report_header(config: pytest.Config) -> str:
    profile = hypothesis.settings.get_current_profile_name()
    seed = config.getoption("--hypothesis-seed")
    how = "the same examples every time" if seed is None else f"--hypothesis-seed={seed}"
    return f"hypothesis: profile {profile}, {how}"


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("multigpu") and not item.get_closest_marker("gpu"):
        item.add_marker("gpu")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs more devices than answer, unless the command line asks for it."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    gpu_tests = config.stash[GPU_TESTS]
    n_devices, gpu_tests.devices = count_devices()
    kept, dropped = [], []
    for item in items:
        needed = 2 if item.get_closest_marker("multigpu") else 1
        faults = "faults" in getattr(item, "fixturenames", ()) and softcuda is None
        if not item.get_closest_marker("gpu") or (needed <= n_devices and not faults):
            kept.append(item)
            continue
        dropped.append(item)
        why = f"{'two CUDA devices' if needed == 2 else 'a CUDA device'} needed"
        if needed <= n_devices:
            why = "real devices do not fail on demand"
        gpu_tests.deselected[why] = gpu_tests.deselected.get(why, 0) + 1
    # "-m gpu" asks for devices; "-m 'not gpu'" and "-m slow" do not. On one device "-m gpu" leaves
    # out the multigpu tests.
    asked = set(re.findall(r"(?<!not )\b(gpu|multigpu)\b", config.getoption("markexpr") or ""))
    if ("gpu" in asked and n_devices == 0) or ("multigpu" in asked and n_devices < 2):
        raise pytest.UsageError(
            f"-m {config.getoption('markexpr')!r} asks for {len(dropped)} tests that cannot run: "
            f"{gpu_tests.devices}"
        )
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    return config.stash[GPU_TESTS].lines()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Make a run in which no test executed a failure: all skipped is not passed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus != pytest.ExitCode.OK or reporter is None or session.config.option.collectonly:
        return
    if not any(reporter.stats.get(outcome) for outcome in ("passed", "xfailed")):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in terminalreporter.config.stash[GPU_TESTS].lines()[1:]:
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(autouse=True)
def _races(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold every gpu test to the race detector of the software devices, where they are in use.

    A test marked planted_race leaves an ordering out: there the detector must find something.
    """
    if softcuda is None or not request.node.get_closest_marker("gpu"):
        yield
        return
    drain_devices()  # what the last test left behind is not this one's
    before = softcuda.races()
    yield
    drain_devices()
    found = softcuda.races() - before
    if request.node.get_closest_marker("planted_race"):
        assert found, "the race detector missed the planted race"
    else:
        assert not found, f"{found} races; the captured stderr describes each"


def drain_devices() -> None:
    """Wait for everything that was enqueued, on every device."""
    import cupy

    for index in range(cupy.cuda.runtime.getDeviceCount()):
        with cupy.cuda.Device(index):
            cupy.cuda.runtime.deviceSynchronize()


@pytest.fixture
def faults() -> Iterator[Callable[[str, int, int], None]]:
    """Return ``inject(what, nth, error)``: the nth next call of a class fails with a CUDA error.

    `what` is malloc, launch, memcpy, event, stream or graph. Real devices do not fail on demand:
    there tests with this fixture are deselected.
    """
    injected: set[str] = set()

    def inject(what: str, nth: int, error: int) -> None:
        injected.add(what)
        softcuda.inject(what, nth, error)

    yield inject
    for what in injected:
        softcuda.inject(what, 0, 0)
    softcuda.reset_errors()
