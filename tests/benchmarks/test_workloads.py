"""Every workload, small: modes give the same bits, rivals agree, what is wrong is caught."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from benchmarks.nets import squeezenet, wavefront
from benchmarks.nets.workload import Workload
from benchmarks.suites.analysis import measure_parallelism
from benchmarks.suites.candidate import Candidate
from benchmarks.suites.catalog import WORKLOADS
from benchmarks.suites.check import WrongOutputError, check_outputs
from benchmarks.suites.measure import Options, measure
from benchmarks.suites.modes import MODES, ours
from benchmarks.suites.rivals import CPU_RIVALS, cpu_rivals, numpy_plain

SCALE = 0.002
#: Sizes that do not follow the scale are cut down by hand.
SMALLER: dict[str, Callable[[], Workload]] = {
    "LSTM wavefront": partial(wavefront.build, SCALE, n_steps=6),
    "SqueezeNet": partial(squeezenet.build, 0.2),
}
BUILDS = {
    name: SMALLER.get(name, partial(build, SCALE))
    for suite in WORKLOADS.values()
    for name, build in suite.items()
}
INSTALLED = {
    "numpy": True,
    "futures": True,
    "dask": importlib.util.find_spec("dask") is not None,
    "torch": importlib.util.find_spec("torch") is not None,
}


@pytest.mark.parametrize("name", BUILDS)
def test_modes_give_the_same_bits_and_rivals_agree(name: str) -> None:
    workload = BUILDS[name]()
    with ExitStack() as stack:
        candidates = []
        for mode in MODES:
            candidate, exe = ours(workload, "cpu", mode, workload.inputs)
            stack.callback(exe.close)
            candidates.append(candidate)
        absent = {}
        for rival in cpu_rivals(workload):
            if isinstance(rival, Candidate):
                stack.callback(rival.close)
                candidates.append(rival)
            else:
                absent[rival[0]] = rival[1]
        found = check_outputs(workload, candidates)
    for mode in MODES[1:]:
        assert found[mode] == "same bits"
    for rival_name in CPU_RIVALS:
        # A rival takes part, or it says which part of it is missing.
        assert (rival_name in found) != (rival_name in absent)
        if rival_name in absent and INSTALLED[rival_name]:
            assert "no counterpart of call" in absent[rival_name]


@pytest.mark.gpu
@pytest.mark.parametrize("name", BUILDS)
def test_on_cuda_modes_and_rivals_agree(name: str) -> None:
    options = Options(backend="cuda", real_device=False, rounds=1, seconds=0.1)
    for resident in (True, False) if name in WORKLOADS["grcuda"] else (True,):
        row = measure(BUILDS[name](), options, resident=resident)
        assert all(row["checked"][mode] == "same bits" for mode in MODES[1:])
        assert {"cupy", "cupy streams"} <= row["checked"].keys()
        # Without a GPU nothing but the host's time may be there.
        for numbers in row["candidates"].values():
            assert numbers.keys() == {"ours", "note", "host_ms"}


def test_one_wrong_bit_of_ours_stops_everything() -> None:
    workload = BUILDS["VEC"]()
    with ExitStack() as stack:
        serial, exe = ours(workload, "cpu", "serial", workload.inputs)
        stack.callback(exe.close)
        good = dict(serial.run())
        bad = {k: np.nextafter(v, np.float32(np.inf), dtype=np.float32) for k, v in good.items()}
        wrong = Candidate("streams", lambda: bad, ours=True)
        with pytest.raises(WrongOutputError, match=r"VEC: streams\] output 'total'"):
            check_outputs(workload, [serial, wrong])
        rival = replace(wrong, name="rival", ours=False)
        assert check_outputs(workload, [serial, rival])["rival"].startswith("within")


def test_a_rival_that_computes_something_else_stops_everything() -> None:
    workload = BUILDS["IMG"]()
    with ExitStack() as stack:
        serial, exe = ours(workload, "cpu", "serial", workload.inputs)
        stack.callback(exe.close)
        plain = numpy_plain(workload)
        wrong = replace(plain, run=lambda: {k: v + 0.01 for k, v in plain.run().items()})
        with pytest.raises(WrongOutputError, match="Nothing was timed"):
            check_outputs(workload, [serial, wrong])
        with pytest.raises(WrongOutputError, match="outputs are missing"):
            check_outputs(workload, [serial, Candidate("silent", dict)])


def test_span_follows_the_dependencies() -> None:
    # One chain has no parallelism; ten independent steps have a span of the longest of them.
    with BUILDS["chain"]().net.compile(backend="cpu", mode="serial") as exe:
        found = measure_parallelism(exe, BUILDS["chain"]().inputs)
        assert found.ratio == pytest.approx(1.0)
    workload = BUILDS["B&S"]()
    with workload.net.compile(backend="cpu", mode="serial") as exe:
        found = measure_parallelism(exe, workload.inputs)
        assert 1.0 < found.ratio <= 10.0 + 1e-9
        assert found.work_ms == pytest.approx(found.span_ms * found.ratio)


def test_a_row_holds_what_a_reader_needs() -> None:
    row = measure(BUILDS["HITS"](), Options(rounds=3, seconds=0.1))
    assert row["rounds"] == 3
    assert set(MODES) <= row["candidates"].keys()
    assert {"numpy", "futures"} <= row["candidates"].keys()
    serial = row["candidates"]["serial"]
    assert serial["speed_up"] == 1.0
    assert len(serial["seconds"]) == 3
    assert row["bound"] >= 1.0
    assert row["ceiling"] > 0
    assert row["candidates"]["auto"]["note"].startswith("took ")
