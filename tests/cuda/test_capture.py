"""A graph that cannot be captured: the steps are issued one by one, and nothing else changes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.cuda_nets import SIZE, diamond, mix

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu

Inject = Callable[[str, int, int], None]

X = np.arange(SIZE, dtype=np.int32)
MATRIX = np.arange(32, dtype=np.float32).reshape(4, 8) - 9
LARGE = 1 << 14  # beyond what blocks of a pool are rounded to
MODES = ("serial", "streams", "graph-serial", "graph")
OUT_OF_MEMORY, LAUNCH_OUT_OF_RESOURCES = 2, 701


def program_of(exe: ag.Executable) -> Any:
    return exe._engine._free[0].program


def barrier_net(between: Callable[..., Any] | None = None) -> ag.AsyncNet:
    """Views of both devices that pass through one barrier and are outputs; `between` is a step."""
    net = ag.AsyncNet("both")
    x = net.input("x", (4, 8), "float32")
    here = net.relu(x, name="here")
    with net.device(1):
        there = net.neg(x, name="there")
        if between is not None:
            there = net.call(between, there, shape=(4, 8), dtype="float32", name="between")
    net.barrier(here, there, name="ready")
    net.output(a=net.transpose(here, axes=(1, 0)))
    with net.device(1):
        net.output(b=net.transpose(there, axes=(1, 0)))
    return net


def check_both(out: Any, x: np.ndarray[Any, Any], factor: float = -1.0) -> None:
    np.testing.assert_array_equal(ag.to_numpy(out["a"]), np.maximum(x, 0).T)
    np.testing.assert_array_equal(ag.to_numpy(out["b"]), factor * x.T)


@pytest.mark.multigpu
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("allocator", ["cost", "exact"])
def test_outputs_that_pass_through_a_barrier_of_another_device(mode: str, allocator: str) -> None:
    with barrier_net().compile(backend="cuda", mode=mode, allocator=allocator) as exe:
        assert program_of(exe).captured == mode.startswith("graph")
        for factor in (1, 2):
            x = np.float32(factor) * MATRIX
            check_both(exe.run(x=x), x)
            check_both(exe.submit(x=x).result(20), x)


@pytest.mark.parametrize("spoilt", [1, 2, 3])
def test_a_capture_that_another_thread_spoils_is_tried_again(
    spoilt: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits for the whole device ends a capture that is none of his."""
    from cupy.cuda import runtime

    from asyncnet_gpu.backends.cuda import capture

    begun: list[int] = []
    begin = runtime.streamBeginCapture

    def wait_for_the_device() -> None:
        with contextlib.suppress(runtime.CUDARuntimeError):
            runtime.deviceSynchronize()

    def begin_and_be_spoilt(stream: int, mode: int) -> None:
        begin(stream, mode)
        begun.append(stream)
        if len(begun) <= spoilt:
            other = threading.Thread(target=wait_for_the_device)
            other.start()
            other.join(20)

    monkeypatch.setattr(capture, "runtime", Redirected(runtime, begin_and_be_spoilt))
    with diamond().compile(backend="cuda", mode="graph") as exe:
        # Drivers may let the wait pass, and then the first capture is good.
        assert program_of(exe).captured == ("cannot be captured" not in caplog.text)
        assert program_of(exe).captured == (len(begun) <= 2 or spoilt < 3)
        exe.run(x=X)


class Redirected:
    """CuPy's runtime with another way to begin a capture."""

    def __init__(self, real: Any, begin: Callable[[int, int], None]) -> None:
        self._real = real
        self.streamBeginCapture = begin

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.multigpu
@pytest.mark.parametrize("mode", ["graph-serial", "graph"])
@pytest.mark.parametrize("why", ["synchronises", "raises"])
def test_what_one_of_two_devices_refuses_to_capture(
    mode: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    import cupy

    def between(xp: Any, a: Any, out: Any) -> None:
        stream = cupy.cuda.get_current_stream()
        if why == "synchronises":
            stream.synchronize()
        elif stream.is_capturing():
            raise RuntimeError("not while capturing")
        xp.multiply(a, 3, out=out)

    net = barrier_net(between)
    with net.compile(backend="cuda", mode=mode) as exe:
        assert not program_of(exe).captured
        assert "cannot be captured" in caplog.text
        assert not any(s.stream.is_capturing() for s in program_of(exe)._streams)
        for factor in (1, 2):
            x = np.float32(factor) * MATRIX
            check_both(exe.run(x=x), x, -3.0)
            run = exe.submit(x=x)
            check_both(run.result(20), x, -3.0)
    with net.compile(backend="cuda", mode="streams") as exe:
        check_both(exe.run(x=MATRIX), MATRIX, -3.0)


@pytest.mark.parametrize("what", ["graph", "launch", "event", "stream", "memcpy", "malloc"])
@pytest.mark.parametrize("nth", [*range(1, 30, 3)])
def test_a_failure_while_capturing_leaves_a_slot_that_works(
    faults: Inject, what: str, nth: int
) -> None:
    """Whatever the call: a typed error and no slot, or a slot whose runs are right."""
    with diamond().compile(backend="cuda", mode="graph") as exe:
        wanted = ag.to_numpy(exe.run(x=X)["z"])
    faults(what, nth, OUT_OF_MEMORY if what == "malloc" else LAUNCH_OUT_OF_RESOURCES)
    try:
        exe = diamond().compile(backend="cuda", mode="graph")
    except ag.DeviceError:
        return
    finally:
        faults(what, 0, 0)
    if (what, nth) == ("graph", 1):
        assert not program_of(exe).captured
    with exe:
        for _ in range(2):
            run = exe.submit(x=X)
            np.testing.assert_array_equal(ag.to_numpy(run.result(20)["z"]), wanted)
            np.testing.assert_array_equal(ag.to_numpy(exe.run(x=X)["z"]), wanted)


def temporaries_net() -> ag.AsyncNet:
    """Two steps through CuPy, the second with a temporary larger than what the first freed."""

    def grow(xp: Any, a: Any, out: Any) -> None:
        out[...] = (a.astype(np.int64) + 1) * 9

    net = ag.AsyncNet("temporaries")
    x = net.input("x", (LARGE,), "int32")
    h = net.call(lambda xp, a, out: xp.add(a * 2, a, out=out), x, shape=LARGE, dtype="int32")
    net.output(y=net.call(grow, h, shape=LARGE, dtype="int32"))
    return net


def test_temporaries_of_a_graph_are_not_given_back_when_the_device_is_full(
    faults: Inject,
) -> None:
    """A traced run of a captured net is issued step by step, and may find the device full."""
    import cupy

    x = np.arange(LARGE, dtype=np.int32)
    wanted = 9 * (3 * x + 1)
    with temporaries_net().compile(backend="cuda", mode="graph") as exe:
        assert program_of(exe).captured
        given = cupy.asarray(x)
        np.testing.assert_array_equal(exe.run(x=given)["y"].get(), wanted)
        kept = program_of(exe)._resources.temporaries
        used = sum(pool.total_bytes() for pool in kept._kept)
        assert used
        faults("malloc", 2, OUT_OF_MEMORY)  # the pool gives its blocks back and tries again
        with exe.trace():
            np.testing.assert_array_equal(exe.run(x=given)["y"].get(), wanted)
        faults("malloc", 0, 0)
        assert sum(pool.total_bytes() for pool in kept._kept) == used
        np.testing.assert_array_equal(exe.run(x=given)["y"].get(), wanted)


def test_a_capture_on_a_full_device_is_not_used(
    faults: Inject, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.arange(LARGE, dtype=np.int32)
    refused = 0
    for nth in range(1, 16):
        faults("malloc", nth, OUT_OF_MEMORY)
        try:
            exe = temporaries_net().compile(backend="cuda", mode="graph")
        except ag.OutOfDeviceMemoryError:
            continue
        finally:
            faults("malloc", 0, 0)
        refused += not program_of(exe).captured
        with exe:
            for _ in range(2):
                np.testing.assert_array_equal(ag.to_numpy(exe.run(x=x)["y"]), 9 * (3 * x + 1))
    assert refused
    assert "device was full" in caplog.text


def test_a_barrier_is_reached_where_steps_are_issued_one_by_one() -> None:
    import cupy

    def stubborn(xp: Any, a: Any, out: Any) -> None:
        cupy.cuda.get_current_stream().synchronize()
        xp.add(a, 1, out=out)

    net = ag.AsyncNet("stubborn")
    x = net.input("x", (SIZE,), "int32")
    h = net.call(stubborn, x, shape=SIZE, dtype="int32")
    ready = net.barrier(h, name="ready")
    net.output(y=mix(net, h, h, 1))
    with net.compile(backend="cuda", mode="graph") as exe:
        assert not program_of(exe).captured
        for _ in range(2):
            run = exe.submit(x=X)
            ready.wait(run, timeout_s=20)
            run.result(20)
