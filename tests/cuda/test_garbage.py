"""What executables leave to the collector: nothing whose freeing waits for the device."""

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

    from asyncnet_gpu.backends.cuda import program

    make, x = NETS[net]
    with make().compile(backend="cuda", mode=mode, timeout_s=0.1) as exe:
        with stuck_streams() as streams, streams[0]:
            given = cupy.asarray(x)
            with pytest.raises(ag.DeadlineExceeded):
                exe.run(x=given)
        exe.run(x=x, timeout_s=20)
    program.reclaim()
    assert not program.UNFINISHED
    with stuck_streams():
        begun = time.monotonic()
        assert gc.collect()
        assert time.monotonic() - begun < 5
