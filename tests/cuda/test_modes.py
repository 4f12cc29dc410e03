"""Every mode gives the bits of the CPU, also when inputs change, in whatever order devices work."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.cuda_nets import SIZE, diamond, inputs, mix, mix_cupy, random_net

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu

MODES = ("serial", "streams", "graph", "graph-serial")
X = np.arange(SIZE, dtype=np.int32)


def program_of(exe: ag.Executable):
    return exe._engine._free[0].program


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("allocator", ["cost", "exact"])
def test_a_diamond_gives_the_bits_of_the_cpu_in_every_run(mode: str, allocator: str) -> None:
    with (
        diamond().compile(backend="cpu", mode="serial") as oracle,
        diamond().compile(backend="cuda", mode=mode, allocator=allocator) as exe,
    ):
        assert program_of(exe).captured == mode.startswith("graph")
        if mode in ("streams", "graph"):
            assert len(exe.plan.streams) == 3
        for run in range(3):
            expected = oracle.run(x=X * (run + 1))
            for out in (exe.run(x=X * (run + 1)), exe.submit(x=X * (run + 1)).result(20)):
                for name in expected:
                    np.testing.assert_array_equal(ag.to_numpy(out[name]), expected[name])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mode", ["streams", "graph"])
def test_random_nets(seed: int, mode: str) -> None:
    check_random(seed, mode, 1)


@pytest.mark.multigpu
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mode", ["serial", "streams", "graph"])
def test_random_nets_on_two_devices(seed: int, mode: str) -> None:
    check_random(100 + seed, mode, 2)


def check_random(seed: int, mode: str, devices: int) -> None:
    with (
        random_net(seed, devices=devices).compile(backend="cpu", mode="serial") as oracle,
        random_net(seed, devices=devices).compile(
            backend="cuda", mode=mode, allocator="exact"
        ) as exe,
    ):
        for run in range(3):
            expected = oracle.run(inputs(run))
            out = exe.run(inputs(run))
            for name in expected:
                np.testing.assert_array_equal(ag.to_numpy(out[name]), expected[name])
        np.testing.assert_array_equal(exe.get_parameter("state"), oracle.get_parameter("state"))


def test_parameters_can_be_written_between_runs() -> None:
    net = ag.AsyncNet("written")
    x = net.input("x", (SIZE,), "int32")
    net.output(mix(net, x, net.parameter("w", np.zeros(SIZE, np.int32)), 1, name="y"))
    for mode in MODES:
        with net.compile(backend="cuda", mode=mode) as exe:
            first = ag.to_numpy(exe.run(x=X)["y"])
            exe.set_parameter("w", np.ones(SIZE, np.int32))
            np.testing.assert_array_equal(ag.to_numpy(exe.run(x=X)["y"]), first + 7)
            np.testing.assert_array_equal(exe.get_parameter("w"), np.ones(SIZE, np.int32))


def test_several_runs_in_flight_do_not_mix() -> None:
    with (
        diamond().compile(backend="cpu", mode="serial") as oracle,
        diamond().compile(backend="cuda", mode="streams", slots=3) as exe,
    ):
        runs = [exe.submit(x=X + i) for i in range(24)]
        for i, run in enumerate(runs):
            expected = oracle.run(x=X + i)["z"]
            np.testing.assert_array_equal(ag.to_numpy(run.result(20)["z"]), expected)


def test_what_cannot_be_captured_is_issued_step_by_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def synchronises(xp: object, a: object, out: object) -> None:
        if xp is not np:
            import cupy

            cupy.cuda.get_current_stream().synchronize()
        out[...] = a + 1  # type: ignore[index, operator]

    net = ag.AsyncNet("stubborn")
    x = net.input("x", (SIZE,), "int32")
    net.output(y=mix(net, net.call(synchronises, x, shape=SIZE, dtype="int32"), x, 1))
    with (
        net.compile(backend="cpu", mode="serial") as oracle,
        net.compile(backend="cuda", mode="graph") as exe,
    ):
        assert not program_of(exe).captured
        assert "cannot be captured" in caplog.text
        for run in range(2):
            expected = oracle.run(x=X + run)["y"]
            np.testing.assert_array_equal(ag.to_numpy(exe.run(x=X + run)["y"]), expected)


def test_captured_temporaries_outlive_the_callers_pool() -> None:
    import cupy

    net = ag.AsyncNet("temporaries")
    x = net.input("x", (SIZE,), "int32")
    net.output(y=net.call(mix_cupy, x, x, shape=SIZE, dtype="int32"))
    with net.compile(backend="cuda", mode="graph") as exe:
        assert program_of(exe).captured
        for run in range(2):
            cupy.get_default_memory_pool().free_all_blocks()
            out = exe.run(x=X + run)["y"]
            np.testing.assert_array_equal(out.get(), ((X + run) * 4) % 1009)


def test_devices_can_be_folded_and_exchanged() -> None:
    expected = None
    for devices in ([0, 0], [1, 0], [0, 1]):
        import cupy

        if max(devices) >= cupy.cuda.runtime.getDeviceCount():
            continue
        with random_net(101, devices=2).compile(
            backend="cuda", mode="streams", devices=devices
        ) as exe:
            out = {k: ag.to_numpy(v) for k, v in exe.run(inputs(0)).items()}
        if expected is None:
            expected = out
        for name, array in out.items():
            np.testing.assert_array_equal(array, expected[name])
