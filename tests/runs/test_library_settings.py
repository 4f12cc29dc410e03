"""What a run sets in NumPy and in its BLAS library, in every thread, and leaves as it was.

Infinity and NaN are results: warnings are errors in these tests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import asyncnet_gpu as ag
from asyncnet_gpu.backends.cpu import blas
from asyncnet_gpu.backends.cpu.numpy_state import BUFFER_SIZE

WAYS = ({"mode": "serial"}, {"mode": "streams"}, {"mode": "streams", "adversary_seed": 1})


def overflowing() -> ag.AsyncNet:
    net = ag.AsyncNet("overflow")
    x = net.input("x", (4, 1000), "float32")
    net.output(a=net.sigmoid(x))
    net.output(b=net.exp(net.square(x)))
    net.output(c=net.log(x))
    return net


@pytest.mark.parametrize("options", [{"mode": "serial"}, {"mode": "streams", "allocator": "exact"},
                                     {"mode": "streams", "adversary_seed": 1}])  # fmt: skip
def test_a_run_does_not_warn(options: dict[str, object]) -> None:
    x = np.full((4, 1000), -200, np.float32)
    with overflowing().compile(backend="cpu", **options) as exe:
        for got in (exe.run(x=x), exe.submit(x=x).result(20)):
            assert (got["a"] == 0).all()
            assert np.isinf(got["b"]).all()
            assert np.isnan(got["c"]).all()
    with pytest.warns(RuntimeWarning):  # what the caller has set is as before
        np.log(x)


# -- buffers and BLAS threads ------------------------------------------------------------------


def blas_threads() -> int:
    """Number of NumPy's own library: others that tests load (SciPy's) are none of a run's."""
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [library for library in libraries if "numpy" in library.filepath]
    return max(library.num_threads for library in own or libraries)


@pytest.fixture
def three_blas_threads() -> Iterator[None]:
    """The library may use three, whoever last limited it; as it was afterwards."""
    with threadpool_limits(3, "blas"):
        yield


class Looks:
    """Net of two operators that note the settings under which they run."""

    def __init__(self) -> None:
        self.buffers: list[int] = []
        self.blas: list[int] = []
        self.net = ag.AsyncNet("looks")
        x = self.net.input("x", (2,), "float32")
        for name in "ab":
            self.net.output(**{name: self.net.call(self.look, x, shape=2, dtype="float32")})

    def look(self, xp: Any, x: Any, *, out: Any) -> None:
        self.buffers.append(np.getbufsize())
        self.blas.append(blas_threads())
        out[...] = x


def in_a_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("options", WAYS)
def test_buffers_are_small_during_a_run_alone(options: dict[str, object]) -> None:
    looks = Looks()
    x = np.zeros(2, np.float32)
    before = np.getbufsize()
    with looks.net.compile(backend="cpu", **options) as exe:
        exe.run(x=x)
        exe.submit(x=x).result(20)
        in_a_thread(lambda: exe.run(x=x))
    assert looks.buffers == [BUFFER_SIZE] * 6
    assert np.getbufsize() == before != BUFFER_SIZE


@pytest.mark.usefixtures("three_blas_threads")
@pytest.mark.parametrize("options", WAYS)
def test_any_thread_may_run_and_limits_blas(options: dict[str, object]) -> None:
    """threadpoolctl ignores all threads but the one that first set a limit."""
    looks = Looks()
    x = np.zeros(2, np.float32)
    with looks.net.compile(backend="cpu", blas_threads=1, **options) as exe:
        exe.run(x=x)
        assert blas_threads() == 3
        in_a_thread(lambda: exe.run(x=x))
        assert blas_threads() == 3
        exe.submit(x=x).result(20)
    assert looks.blas == [1] * 6
    assert blas_threads() == 3


@pytest.mark.usefixtures("three_blas_threads")
def test_the_last_of_several_runs_restores_the_number() -> None:
    started, go_on = threading.Event(), threading.Event()

    def hold(xp: Any, x: Any, *, out: Any) -> None:
        started.set()
        assert go_on.wait(20)
        out[...] = x

    held = ag.AsyncNet("held")
    x = held.input("x", (2,), "float32")
    held.output(y=held.call(hold, x, shape=2, dtype="float32"))
    looks, zeros = Looks(), np.zeros(2, np.float32)
    with (
        held.compile(backend="cpu", blas_threads=1) as first,
        looks.net.compile(backend="cpu", blas_threads=1) as second,
    ):
        run = first.submit(x=zeros)
        assert started.wait(20)
        second.run(x=zeros)
        assert blas_threads() == 1  # the first is still under way
        go_on.set()
        run.result(20)
    assert looks.blas == [1, 1]
    assert blas_threads() == 3


@pytest.mark.usefixtures("three_blas_threads")
def test_a_run_given_up_lifts_its_limit_once() -> None:
    """It ends twice: when it is given up, and when the operator that hung comes back."""
    go_on = threading.Event()

    def hang(xp: Any, x: Any, *, out: Any) -> None:
        go_on.wait(20)
        out[...] = x

    net = ag.AsyncNet("hangs")
    x = net.input("x", (2,), "float32")
    net.output(y=net.call(hang, x, shape=2, dtype="float32"))
    looks, zeros = Looks(), np.zeros(2, np.float32)
    before = threading.enumerate()
    with net.compile(backend="cpu", blas_threads=1) as exe:
        with pytest.raises(ag.DeadlineExceeded):
            exe.run(x=zeros, timeout_s=0.05)
        assert blas_threads() == 3
        go_on.set()
        for thread in set(threading.enumerate()) - set(before):
            if thread.name.startswith("asyncnet-cpu"):
                thread.join(20)
    for _ in range(2):
        with looks.net.compile(backend="cpu", blas_threads=1) as exe:
            exe.run(x=zeros)
        assert blas_threads() == 3
    assert looks.blas == [1] * 4


@pytest.mark.usefixtures("three_blas_threads")
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_limit_that_fails_half_way_is_lifted(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    looks, zeros = Looks(), np.zeros(2, np.float32)
    set_number = blas._set

    def fails(library: Any, n_threads: int) -> None:
        set_number(library, n_threads)
        monkeypatch.setattr(blas, "_set", set_number)
        raise error

    with looks.net.compile(backend="cpu", blas_threads=1) as exe:
        for start in (exe.run, exe.submit):
            monkeypatch.setattr(blas, "_set", fails)
            with pytest.raises(error):
                start(x=zeros).result(20)
            assert blas_threads() == 3
            exe.run(x=zeros)
            assert blas_threads() == 3
    assert looks.blas == [1] * 4


# -- hostile orders ----------------------------------------------------------------------------


def test_runs_that_follow_one_another_in_a_hostile_order() -> None:
    """The end of one starts the next, in the same thread and on the same slot."""
    entered, go_on = threading.Event(), threading.Event()

    def wait(xp: Any, x: Any, *, out: Any) -> None:
        entered.set()
        assert go_on.wait(20)
        out[...] = x

    net = ag.AsyncNet("waits")
    x = net.input("x", (2,), "float32")
    net.output(y=net.call(wait, x, shape=2, dtype="float32"))
    ones, runs = np.ones(2, np.float32), []
    with net.compile(backend="cpu", adversary_seed=1, timeout_s=20) as exe:
        thread = threading.Thread(target=lambda: runs.append(exe.submit(x=ones)))
        thread.start()
        assert entered.wait(20)
        runs += [exe.submit(x=ones) for _ in range(3)]
        from_callback: list[Any] = []
        runs[-1].add_done_callback(lambda _: from_callback.append(exe.run(x=ones)))
        go_on.set()
        thread.join(20)
        assert [run.result(20)["y"].tolist() for run in runs] == [[1, 1]] * 4
        assert from_callback[0]["y"].tolist() == [1, 1]
