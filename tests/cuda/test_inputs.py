"""Inputs from anywhere, in order of whoever writes them; outputs that nothing overwrites."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.cuda_nets import SIZE, mix, mix_cpu

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu

X = np.arange(SIZE, dtype=np.int32)
#: Slow enough that a run that does not wait for it would overtake it on a real device.
FILL = """
#ifndef SOFTCUDA_EXTENT
#define SOFTCUDA_EXTENT(n)
#endif
extern "C" __global__ void fill(int* out SOFTCUDA_EXTENT(n), int value, int n) {
  long long until = clock64() + 100000;
  while (clock64() < until) {}
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = value + i;
}
"""


def net_of_inputs() -> ag.AsyncNet:
    net = ag.AsyncNet("inputs")
    x = net.input("x", (SIZE,), "int32")
    y = net.input("y", (SIZE,), "int32")
    half = net.slice(x, starts=[SIZE // 2], ends=[SIZE], name="half")
    both = net.concat(half, net.slice(y, starts=[0], ends=[SIZE // 2]), axis=0, name="both")
    net.output(mix(net, x, y, 2, name="a"), mix(net, both, x, 3, name="b"), x=x, half=half)
    return net


def expected_of(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    a, b = np.empty_like(x), np.empty_like(x)
    mix_cpu(np, x, y, np.int32(2), np.int32(SIZE), a)
    both = np.concatenate([x[SIZE // 2 :], y[: SIZE // 2]])
    mix_cpu(np, both, x, np.int32(3), np.int32(SIZE), b)
    return {"a": a, "b": b, "x": x, "half": x[SIZE // 2 :]}


def check(out: dict[str, Any], x: np.ndarray, y: np.ndarray) -> None:
    for name, array in expected_of(x, y).items():
        np.testing.assert_array_equal(ag.to_numpy(out[name]), array)


class OnlyDlpack:
    """Hides everything of an array but DLPack; notes which stream the consumer named."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.streams: list[Any] = []

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        self.streams.append(stream)
        return (
            self.array.__dlpack__(stream=stream, **options)
            if stream is not None
            else self.array.__dlpack__(**options)
        )

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class OnlyCai:
    """Hides everything of an array but the CUDA array interface."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> Any:
        return self.array.__cuda_array_interface__


@pytest.fixture(params=["serial", "streams", "graph"])
def exe(request: pytest.FixtureRequest):
    with net_of_inputs().compile(backend="cuda", mode=request.param, allocator="exact") as made:
        yield made


def test_every_kind_of_array_is_taken(exe: ag.Executable) -> None:
    import cupy

    makers = [
        lambda a: a,
        lambda a: a.tolist(),
        lambda a: np.repeat(a, 2)[::2],
        OnlyDlpack,
        cupy.asarray,
        lambda a: cupy.asarray(np.repeat(a, 2))[::2],
        lambda a: cupy.asarray(np.concatenate([a[:1], a]))[1:],
        lambda a: OnlyDlpack(cupy.asarray(a)),
        lambda a: OnlyCai(cupy.asarray(a)),
    ]
    for i, make in enumerate(makers):
        for j, other in enumerate(makers[::4]):
            x, y = X + i, X * 3 + j
            check(exe.run(x=make(x), y=other(y)), x, y)


def test_an_array_of_the_right_device_is_not_copied(exe: ag.Executable) -> None:
    import cupy

    array = cupy.arange(SIZE, dtype=np.int32)
    for given in (array, OnlyDlpack(array), OnlyCai(array)):
        adopted = exe._backend.adopt(given, exe._inputs["x"][0], 0)
        assert adopted.array.data.ptr == array.data.ptr


def test_what_begins_at_an_odd_address_is_copied_to_an_even_one(exe: ag.Executable) -> None:
    import cupy

    adopted = exe._backend.adopt(
        cupy.asarray(np.arange(SIZE + 1, dtype="i4"))[1:], exe._inputs["x"][0], 0
    )
    assert adopted.array.data.ptr % 16 == 0
    np.testing.assert_array_equal(adopted.array.get(), X + 1)


@pytest.mark.multigpu
def test_the_source_of_a_copy_between_devices_can_be_overwritten_afterwards(
    exe: ag.Executable,
) -> None:
    import cupy

    with cupy.cuda.Device(1), cupy.cuda.Stream(non_blocking=True) as stream:
        far = cupy.repeat(cupy.arange(SIZE, dtype=np.int32), 2)
        for i in range(4):
            run = exe.submit(x=far[::2], y=X)
            # The pool gives these the bytes of the contiguous copy that was made on the way.
            cupy.full(SIZE, i, np.int32)
            check(run.result(20), X, X)
        stream.synchronize()


@pytest.mark.multigpu
def test_an_array_of_another_device_is_brought_over(exe: ag.Executable) -> None:
    import cupy

    with cupy.cuda.Device(1), cupy.cuda.Stream(non_blocking=True):
        far = cupy.arange(SIZE, dtype=np.int32) * 5
        stream = cupy.cuda.get_current_stream()
        out = exe.run(x=far, y=X)
        assert out["a"].device.id == 0
        stream.synchronize()
    check(out, X * 5, X)


@pytest.mark.parametrize("how", ["run", "submit"])
def test_a_run_comes_after_what_the_current_stream_still_writes(
    exe: ag.Executable, how: str
) -> None:
    import cupy

    fill = cupy.RawKernel(FILL, "fill")
    with cupy.cuda.Stream(non_blocking=True) as stream:
        array = cupy.empty(SIZE, np.int32)
        for i in range(4):
            fill((3,), (32,), (array, np.int32(i), np.int32(SIZE)))
            out = exe.run(x=array, y=X) if how == "run" else exe.submit(x=array, y=X).result(20)
            check(out, X + i, X)  # and the next fill may overwrite the input at once
        stream.synchronize()


def test_dlpack_is_asked_for_the_current_stream(exe: ag.Executable) -> None:
    import cupy

    with cupy.cuda.Stream(non_blocking=True) as stream:
        given = OnlyDlpack(cupy.asarray(X))
        check(exe.run(x=given, y=X), X, X)
        assert given.streams == [stream.ptr]


def test_outputs_are_the_callers_to_keep(exe: ag.Executable) -> None:
    first = exe.run(x=X, y=X)
    second = exe.run(x=X + 1, y=X)
    check(first, X, X)
    check(second, X + 1, X)
    pointers = {array.data.ptr for out in (first, second) for array in out.values()}
    assert len(pointers) == 8


def test_a_freed_output_is_not_written_while_its_stream_still_reads_it(
    exe: ag.Executable,
) -> None:
    import cupy

    fill = cupy.RawKernel(FILL, "fill")
    with cupy.cuda.Stream(non_blocking=True) as stream:
        totals = []
        for i in range(6):
            out = exe.run(x=X + i, y=X)
            slow = cupy.empty(SIZE, np.int32)
            fill((3,), (32,), (slow, np.int32(0), np.int32(SIZE)))
            totals.append(out["a"] + slow * 0)  # reads the output after the slow kernel
            del out  # its block goes back to the pool while that read is still to come
        stream.synchronize()
        for i, total in enumerate(totals):
            np.testing.assert_array_equal(total.get(), expected_of(X + i, X)["a"])


def test_outputs_of_a_net_without_inputs_wait_for_who_had_their_bytes_before() -> None:
    import cupy

    fill = cupy.RawKernel(FILL, "fill")
    net = ag.AsyncNet("no_inputs")
    w = net.parameter("w", X)
    net.output(y=mix(net, w, w, 1))
    with (
        net.compile(backend="cuda", mode="serial") as made,
        cupy.cuda.Stream(non_blocking=True) as stream,
    ):
        expected = made.run()["y"].get()
        for _ in range(4):
            # Freed while the stream is still to write it; the next output gets its bytes.
            fill((3,), (32,), (cupy.empty(SIZE, np.int32), np.int32(0), np.int32(SIZE)))
            np.testing.assert_array_equal(made.run()["y"].get(), expected)
        stream.synchronize()


def test_outputs_of_a_queued_run_come_from_the_pool_of_the_callers_stream() -> None:
    import threading

    import cupy

    gate = threading.Event()

    def hold(xp: Any, a: Any, out: Any) -> None:
        gate.wait(10)
        out[...] = a + 1

    fill = cupy.RawKernel(FILL, "fill")
    net = ag.AsyncNet("queued")
    net.output(y=net.call(hold, net.input("x", (SIZE,), "int32"), shape=SIZE, dtype="int32"))
    with net.compile(backend="cuda", mode="serial") as made:
        with cupy.cuda.Stream(non_blocking=True):
            runs = [made.submit(x=cupy.asarray(X) + i) for i in range(3)]
        # Blocks in the legacy stream's part of the pool, with work on them still to come.
        for _ in range(4):
            fill((3,), (32,), (cupy.empty(SIZE, np.int32), np.int32(0), np.int32(SIZE)))
        gate.set()
        for i, run in enumerate(runs):
            np.testing.assert_array_equal(ag.to_numpy(run.result(20)["y"]), X + i + 1)


@pytest.mark.parametrize(
    "bad", [X[:-1], X.astype(np.int64), "text", [[1, 2]]], ids=["shape", "dtype", "text", "ragged"]
)
def test_what_does_not_fit_is_refused_before_anything_runs(exe: ag.Executable, bad: Any) -> None:
    import cupy

    with pytest.raises(ag.ShapeError, match="input"):
        exe.run(x=bad, y=X)
    if isinstance(bad, np.ndarray):
        with pytest.raises(ag.ShapeError, match="expected int32"):
            exe.run(x=cupy.asarray(bad), y=X)
    check(exe.run(x=X, y=X), X, X)


def test_empty_arrays_pass_through() -> None:
    net = ag.AsyncNet("empty")
    x = net.input("x", (0, 3), "float32")
    net.output(y=net.copy(x), x=x)
    for mode in ("serial", "graph"):
        with net.compile(backend="cuda", mode=mode) as exe:
            out = exe.run(x=np.empty((0, 3), np.float32))
            assert out["y"].shape == out["x"].shape == (0, 3)


def test_a_transposed_output_comes_out_contiguous() -> None:
    net = ag.AsyncNet("transposed")
    x = net.input("x", (2, 3), "float32")
    net.output(y=net.transpose(net.copy(x)), x=net.transpose(x, name="t"))
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    for mode in ("serial", "graph"):
        with net.compile(backend="cuda", mode=mode) as exe:
            for run in range(2):
                out = exe.run(x=value + run)
                for array in out.values():
                    assert array.flags.c_contiguous
                    np.testing.assert_array_equal(array.get(), value.T + run)
