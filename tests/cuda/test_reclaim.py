"""Freeing waits for the device: neither closing nor the collector may, while a run is stuck."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from helpers.cuda_nets import SIZE, diamond
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

    from asyncnet_gpu.backends.cuda import reclaim

    make, x = NETS[net]
    with make().compile(backend="cuda", mode=mode, timeout_s=0.1) as exe:
        with stuck_streams() as streams, streams[0]:
            given = cupy.asarray(x)
            with pytest.raises(ag.DeadlineExceeded):
                exe.run(x=given)
        exe.run(x=x, timeout_s=20)
    reclaim.reclaim()
    assert not reclaim.n_under_way()
    with stuck_streams():
        begun = time.monotonic()
        assert gc.collect()
        assert time.monotonic() - begun < 5


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("mode", ["serial", "streams", "graph", "auto"])
@pytest.mark.parametrize("slots", [1, 2])
def test_closing_does_not_wait_for_runs_that_were_given_up(mode: str, slots: int) -> None:
    import cupy

    from asyncnet_gpu.backends.cuda import reclaim

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
        assert reclaim.n_under_way() == 1
    given = None
    assert free() < before  # kept while the run was under way
    reclaim.reclaim()
    assert free() == before


def test_what_is_left_is_freed_in_order_once_every_run_has_ended() -> None:
    from asyncnet_gpu.backends.cuda import reclaim

    assert not reclaim.n_under_way()
    freed: list[str] = []
    ended = [False, False]
    reclaim.give_up(lambda: ended[0], lambda: freed.append("first"))
    reclaim.give_up(lambda: ended[1], lambda: freed.append("second"))
    reclaim.release(lambda: freed.append("third"))
    ended[1] = True
    reclaim.reclaim()
    assert reclaim.n_under_way() == 1
    assert not freed
    ended[0] = True
    reclaim.release(lambda: freed.append("fourth"))
    assert freed == ["first", "second", "third", "fourth"]
