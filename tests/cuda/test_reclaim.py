"""Freeing waits for the device: neither closing nor the collector may, while a run is stuck."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from helpers.cuda_nets import SIZE, diamond
from helpers.forks import in_child
from helpers.loops import COND, LOOP, load, matrix

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu

NETS: dict[str, tuple[Callable[[], ag.AsyncNet], np.ndarray[Any, Any]]] = {
    "kernels": (diamond, np.arange(SIZE, dtype=np.int32)),
    "if": (lambda: load(COND), matrix(0)),
    "loop": (lambda: load(LOOP), matrix(0)),
}


@contextmanager
def stuck_streams() -> Iterator[list[Any]]:
    """Yield a stream of every device that has been given work without an end, until the block's."""
    import cupy

    go_on, streams = threading.Event(), []
    for device in range(cupy.cuda.runtime.getDeviceCount()):
        with cupy.cuda.Device(device):
            streams.append(cupy.cuda.Stream(non_blocking=True))
            streams[-1].launch_host_func(lambda _: go_on.wait(20), None)
    try:
        yield streams
    finally:
        go_on.set()
        for stream in streams:
            stream.synchronize()


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("mode", ["serial", "streams", "graph"])
@pytest.mark.parametrize("net", NETS)
def test_collecting_what_runs_left_does_not_wait_for_a_stuck_device(net: str, mode: str) -> None:
    """Exceptions of runs that were given up hold programs in cycles, long after their end."""
    import cupy

    from asyncnet_gpu.backends.cuda.reclaim import RECLAIMER

    make, x = NETS[net]
    with make().compile(backend="cuda", mode=mode, timeout_s=0.1) as exe:
        with stuck_streams() as streams, streams[0]:
            given = cupy.asarray(x)
            with pytest.raises(ag.DeadlineExceeded):
                exe.run(x=given)
        exe.run(x=x, timeout_s=20)
    RECLAIMER.reclaim()
    assert not RECLAIMER.n_stuck
    with stuck_streams():
        begun = time.monotonic()
        assert gc.collect()
        assert time.monotonic() - begun < 5


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("mode", ["serial", "streams", "graph", "auto"])
@pytest.mark.parametrize("slots", [1, 2])
def test_closing_does_not_wait_for_runs_that_were_given_up(mode: str, slots: int) -> None:
    import cupy

    from asyncnet_gpu.backends.cuda.reclaim import RECLAIMER

    def free() -> int:
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()
        return int(cupy.cuda.runtime.memGetInfo()[0])

    make, x = NETS["kernels"]
    with make().compile(backend="cuda"):
        pass
    before = free()
    other = make().compile(backend="cuda", mode="streams")
    exe = make().compile(backend="cuda", mode=mode, timeout_s=0.3, slots=slots)
    for run in [exe.submit(x=x) for _ in range(20)]:
        run.result(20)
    run = None
    with stuck_streams() as streams, streams[0]:
        given = cupy.asarray(x)
        begun = time.monotonic()
        with pytest.raises(ag.DeadlineExceeded):
            exe.run(x=given)
        other.close()
        exe.close()
        assert time.monotonic() - begun < 5
        assert RECLAIMER.n_stuck == 1
    given = None
    assert free() < before  # kept while the run was under way
    RECLAIMER.reclaim()
    assert free() == before


class Stuck:
    """A run that was given up."""

    def __init__(self, made: Any, owner: object, free: Callable[[], None]) -> None:
        self.ended = self.idle = False
        made.give_up(owner, lambda: self.ended, lambda: self.idle, free)


def test_what_is_left_is_freed_in_order_once_every_run_has_ended() -> None:
    from asyncnet_gpu.backends.cuda.reclaim import Reclaimer

    made, freed = Reclaimer(), list[str]()
    runs = [Stuck(made, name, lambda name=name: freed.append(name)) for name in "ab"]
    made.release(lambda: freed.append("c"))
    runs[1].ended = True
    made.reclaim()
    assert made.n_stuck == 1
    assert not freed
    runs[0].ended = True
    made.release(lambda: freed.append("d"))
    assert freed == ["a", "b", "c", "d"]
    assert not made.n_stuck + made.n_left


def test_a_step_that_hangs_on_the_host_keeps_what_its_owner_has_and_nothing_else() -> None:
    from asyncnet_gpu.backends.cuda.reclaim import Reclaimer

    made, freed = Reclaimer(), list[str]()
    run = Stuck(made, "owner", lambda: freed.append("program"))
    made.release(lambda: freed.append("buffers"), "owner")
    run.idle = True
    made.release(lambda: freed.append("of another"))
    assert freed == ["of another"]
    run.ended = True
    made.reclaim()
    assert freed[1:] == ["program", "buffers"]


def test_what_is_given_up_in_the_middle_of_freeing_is_not_freed() -> None:
    """Another thread's turn comes between any two lines."""
    from asyncnet_gpu.backends.cuda.reclaim import Reclaimer

    made, freed = Reclaimer(), list[str]()

    def free_while_another_is_given_up() -> None:
        freed.append("first")
        Stuck(made, "other", lambda: freed.append("stuck"))

    made.give_up("a", lambda: True, lambda: False, free_while_another_is_given_up)
    made.release(lambda: freed.append("second"))
    assert freed == ["first"]
    assert made.n_left == 2


def test_a_forked_child_frees_nothing_of_its_parents() -> None:
    from asyncnet_gpu.backends.cuda.reclaim import Reclaimer

    made, freed = Reclaimer(), list[str]()
    run = Stuck(made, "owner", lambda: freed.append("program"))

    def child() -> None:
        run.ended = True
        made.release(lambda: freed.append("own"))
        assert freed == ["own"]

    in_child(child)
    made.reclaim()
    assert made.n_stuck == made.n_left == 1
    run.ended = True
    made.reclaim()
    assert freed == ["program"]


@pytest.mark.parametrize("mode", ["serial", "streams", "graph"])
def test_an_interrupt_at_any_moment_leaves_no_run_in_the_way(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asyncnet_gpu.backends.cuda.program import CudaProgram
    from asyncnet_gpu.backends.cuda.reclaim import RECLAIMER

    make, x = NETS["kernels"]
    with make().compile(backend="cuda", mode=mode) as exe:
        wanted = ag.to_numpy(exe.run(x=x)["z"])
        for name in ("_set_inputs", "_issue_all", "_issue_whole", "_issue_steps", "_ended",
                     "_wait_in_driver"):  # fmt: skip
            for how in (lambda: exe.run(x=x), lambda: exe.run(x=x, timeout_s=20),
                        lambda: exe.submit(x=x).result(20)):  # fmt: skip
                with monkeypatch.context() as patch:
                    patch.setattr(CudaProgram, name, interrupted_once(getattr(CudaProgram, name)))
                    with contextlib.suppress(KeyboardInterrupt, ag.AsyncNetError):
                        how()
        np.testing.assert_array_equal(ag.to_numpy(exe.run(x=x)["z"]), wanted)
    for _ in range(200):
        RECLAIMER.reclaim()
        if not RECLAIMER.n_stuck:
            break
        time.sleep(0.01)
    assert not RECLAIMER.n_stuck + RECLAIMER.n_left


def interrupted_once(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that the keyboard interrupts: in the main thread, where it does that."""
    left = [KeyboardInterrupt()]

    def call(*arguments: Any) -> Any:
        if left and threading.current_thread() is threading.main_thread():
            raise left.pop()
        return method(*arguments)

    return call
