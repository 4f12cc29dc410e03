"""Several runs in flight: from threads, from asyncio, through slots and queue."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc

import numpy as np
import pytest

import asyncnet_gpu as ag


def branchy() -> tuple[ag.AsyncNet, ag.AsyncNetBarrier]:
    net = ag.AsyncNet("branchy")
    x = net.input("x", (64,), "float32")
    a = net.add(net.relu(x), 1.0)
    b = net.mul(net.sub(x, 2.0), 3.0)
    barrier = net.barrier(a, b, name="both")
    net.output(net.add(a, b, name="y"))
    return net, barrier


def wanted(v: float) -> float:
    return max(v, 0.0) + 1 + (v - 2) * 3


@pytest.mark.parametrize("mode", ["serial", "streams", "graph"])
def test_many_runs_from_many_threads(mode: str) -> None:
    net, _ = branchy()
    wrong: list[float] = []

    def client(exe: ag.Executable, seed: int) -> None:
        for i in range(40):
            v = float(seed * 100 + i)
            out = exe.submit(x=np.full(64, v, np.float32)).result(30)["y"]
            if not (out == wanted(v)).all():
                wrong.append(v)

    with net.compile(backend="cpu", mode=mode, allocator="exact", slots=4, queue=8) as exe:
        clients = [threading.Thread(target=client, args=(exe, s)) for s in range(8)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(60)
            assert not thread.is_alive()
    assert wrong == []


def test_memory_is_flat_over_many_runs() -> None:
    net, _ = branchy()
    x = np.ones(64, np.float32)
    with net.compile(backend="cpu", mode="streams", allocator="exact", slots=4) as exe:

        def some(n: int) -> None:
            for run in [exe.submit(x=x) for _ in range(n)]:
                run.result(30)

        some(200)
        tracemalloc.start()
        some(50)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            some(50)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert grown < 50_000


def test_await_runs_and_barriers() -> None:
    net, barrier = branchy()

    async def main() -> list[dict[str, np.ndarray]]:
        with net.compile(backend="cpu", mode="streams", allocator="exact", slots=2) as exe:
            first = exe.submit(x=np.zeros(64, np.float32))
            await barrier.of(first)
            assert barrier.reached(first)
            runs = [exe.submit(x=np.full(64, v, np.float32)) for v in range(10)]
            return [await first, *await asyncio.gather(*runs)]

    results = asyncio.run(main())
    assert [r["y"][0] for r in results] == [wanted(0), *[wanted(v) for v in range(10)]]


def test_failed_run_raises_when_awaited() -> None:
    def boom(xp: object, a: np.ndarray, out: np.ndarray) -> None:
        raise ValueError("boom")

    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    net.output(net.call(boom, x, shape=3, dtype="float32", name="y"))

    async def main() -> None:
        with net.compile(backend="cpu", mode="serial") as exe:
            await exe.submit(x=np.zeros(3, np.float32))

    with pytest.raises(ag.DeviceError, match="boom"):
        asyncio.run(main())


def test_done_callbacks_see_the_end() -> None:
    net, _ = branchy()
    with net.compile(backend="cpu", mode="streams") as exe:
        seen: list[bool] = []
        run = exe.submit(x=np.zeros(64, np.float32))
        run.add_done_callback(lambda r: seen.append(r.done()))
        run.result(5)
        run.add_done_callback(lambda r: seen.append(r.done()))
        for _ in range(100):
            if len(seen) == 2:
                break
            threading.Event().wait(0.01)
        assert seen == [True, True]
        assert run.exception() is None


def test_auto_chooses_and_says_why() -> None:
    net, _ = branchy()
    with net.compile(backend="cpu", mode="auto") as exe:
        for _ in range(30):
            exe.run(x=np.zeros(64, np.float32))
        assert exe.mode in ("serial", "streams")
        assert exe.why
