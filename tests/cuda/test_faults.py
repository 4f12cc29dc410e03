"""Whatever fails: a typed error in words, nothing left behind, the executable usable again."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers.cuda_nets import SIZE, diamond, mix
from helpers.forks import in_child

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu

Inject = Callable[[str, int, int], None]

X = np.arange(SIZE, dtype=np.int32)
OUT_OF_MEMORY, LAUNCH_OUT_OF_RESOURCES, INVALID, ILLEGAL_ADDRESS = 2, 701, 1, 700
MODES = ("serial", "streams", "graph")

BAD_ADDRESS = """
extern "C" __global__ void bad(const int* a, int* out) {
  int* nowhere = (int*)8;
  if (a[0] == 1) *nowhere = 3;
  out[0] = a[0];
}
"""


def free_bytes() -> list[int]:
    import cupy

    gc.collect()  # what earlier tests left in cycles would come back in the middle
    free = []
    for device in range(cupy.cuda.runtime.getDeviceCount()):
        with cupy.cuda.Device(device):
            cupy.get_default_memory_pool().free_all_blocks()
            free.append(cupy.cuda.runtime.memGetInfo()[0])
    return free


@pytest.fixture(scope="module", autouse=True)
def _few_objects_to_collect() -> Iterator[None]:
    """Leave what is there before these tests out of their many collections."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def expected() -> np.ndarray:
    with diamond().compile(backend="cpu", mode="serial") as exe:
        return exe.run(x=X)["z"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nth", range(1, 8))
@pytest.mark.parametrize(
    ("what", "code"),
    [("malloc", OUT_OF_MEMORY), ("stream", INVALID), ("event", INVALID), ("memcpy", INVALID)],
)
def test_a_failure_while_a_slot_is_made_leaves_nothing_behind(
    faults: Inject, mode: str, what: str, code: int, nth: int, expected: np.ndarray
) -> None:
    net = diamond()
    with net.compile(backend="cuda", mode=mode):
        pass  # kernels are loaded, pools and libraries have what they keep
    before = free_bytes()
    faults(what, nth, code)
    error: ag.DeviceError | None = None
    try:
        net.compile(backend="cuda", mode=mode).close()
    except ag.DeviceError as raised:
        error = raised
    faults(what, 0, 0)
    if error is not None:
        assert "cudaError" in str(error)
        assert "expected" in str(error)
        if what == "malloc":
            assert isinstance(error, ag.OutOfDeviceMemoryError)
    del error
    assert free_bytes() == before
    with net.compile(backend="cuda", mode=mode) as exe:
        np.testing.assert_array_equal(ag.to_numpy(exe.run(x=X)["z"]), expected)


@pytest.mark.parametrize("mode", MODES)
def test_a_net_too_large_says_what_was_asked_and_what_is_free(mode: str) -> None:
    import cupy

    total = cupy.cuda.runtime.memGetInfo()[1]
    net = ag.AsyncNet("large")
    x = net.input("x", (4,), "float32")
    big = net.call(lambda xp, a, out: None, x, shape=total // 3, dtype="float32", name="big")
    net.output(net.call(lambda xp, a, out: None, big, shape=4, dtype="float32", name="y"))
    before = free_bytes()
    with pytest.raises(ag.OutOfDeviceMemoryError, match=r"planned.*free of.*cudaError.*slots="):
        net.compile(backend="cuda", mode=mode)
    assert free_bytes() == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["run", "submit"])
@pytest.mark.parametrize("what", ["launch", "memcpy", "event", "graph", "malloc"])
@pytest.mark.parametrize("nth", [1, 2, 4])
def test_a_run_that_fails_says_so_and_the_next_one_is_right(
    faults: Inject, mode: str, how: str, what: str, nth: int, expected: np.ndarray
) -> None:
    import cupy

    with diamond().compile(backend="cuda", mode=mode) as exe:
        given = cupy.asarray(X)
        exe.run(x=given)
        cupy.get_default_memory_pool().free_all_blocks()
        faults(what, nth, OUT_OF_MEMORY if what == "malloc" else LAUNCH_OUT_OF_RESOURCES)
        out, text = None, ""
        try:
            out = exe.run(x=given) if how == "run" else exe.submit(x=given).result(20)
        except ag.DeviceError as error:
            text = str(error)
        faults(what, 0, 0)
        if what == "launch" and mode != "graph":
            assert text
        if out is None:
            assert "cudaError" in text or "CUDA_ERROR" in text
        else:
            np.testing.assert_array_equal(ag.to_numpy(out["z"]), expected)
        for _ in range(2):
            np.testing.assert_array_equal(ag.to_numpy(exe.run(x=given)["z"]), expected)


@pytest.mark.parametrize("nth", range(1, 24))
def test_an_order_that_cannot_be_enqueued_ends_the_run(
    faults: Inject, nth: int, expected: np.ndarray
) -> None:
    import cupy

    with diamond().compile(backend="cuda", mode="streams", allocator="exact") as exe:
        given = cupy.asarray(X)
        exe.run(x=given)
        faults("event", nth, INVALID)
        try:
            out = exe.run(x=given)
        except ag.DeviceError:
            out = None
        faults("event", 0, 0)
        for got in (out, exe.run(x=given)):
            if got is not None:
                np.testing.assert_array_equal(ag.to_numpy(got["z"]), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_made_is_destroyed(
    faults: Inject, mode: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cupy.cuda import runtime

    open_handles: set[tuple[str, int]] = set()
    pairs = {
        "eventCreateWithFlags": "eventDestroy", "streamCreateWithPriority": "streamDestroy",
        "graphInstantiate": "graphExecDestroy", "malloc": "free",
    }  # fmt: skip
    for make, destroy in pairs.items():
        first, last = getattr(runtime, make), getattr(runtime, destroy)

        def made(*args: Any, kind: str = destroy, call: Any = first) -> int:
            handle = call(*args)
            open_handles.add((kind, handle))
            return handle

        def destroyed(handle: int, kind: str = destroy, call: Any = last) -> None:
            open_handles.remove((kind, handle))
            call(handle)

        monkeypatch.setattr(runtime, make, made)
        monkeypatch.setattr(runtime, destroy, destroyed)
    if fails:
        faults("event", 2, INVALID)
        with pytest.raises(ag.DeviceError):
            diamond().compile(backend="cuda", mode=mode)
    else:
        with diamond().compile(backend="cuda", mode=mode) as exe:
            exe.run(x=X)
            assert {kind for kind, _ in open_handles} >= {"eventDestroy", "streamDestroy", "free"}
    assert not open_handles


def test_a_failed_launch_names_its_step_and_spares_the_other_branch(faults: Inject) -> None:
    seen: list[str] = []

    def note(name: str) -> Any:
        def fn(xp: Any, a: Any, out: Any) -> None:
            seen.append(name)
            out[...] = a

        return fn

    net = ag.AsyncNet("branches")
    x = net.input("x", (SIZE,), "int32")
    left, right = mix(net, x, x, 1, name="left"), mix(net, x, x, 2, name="right")
    net.output(net.call(note("after_left"), left, shape=SIZE, dtype="int32", name="after_left"))
    net.output(net.call(note("after_right"), right, shape=SIZE, dtype="int32", name="after_right"))
    with net.compile(backend="cuda", mode="streams", allocator="exact") as exe:
        exe.run(x=X)
        seen.clear()
        faults("launch", 1, LAUNCH_OUT_OF_RESOURCES)
        first = exe.plan.node_of(exe.plan.steps[0]).name
        other = "right" if first == "left" else "left"
        with pytest.raises(ag.DeviceError, match=f"{first!r}.*step 0.*cuda_nets.py"):
            exe.run(x=X)
        assert seen == [f"after_{other}"]


@pytest.mark.parametrize("mode", ["serial", "streams"])
def test_an_error_of_a_users_function_keeps_its_class(mode: str) -> None:
    broken = [True]

    def fn(xp: Any, a: Any, out: Any) -> None:
        if broken[0]:
            raise ZeroDivisionError("boom")
        out[...] = a + 1

    net = ag.AsyncNet("raises")
    x = net.input("x", (SIZE,), "int32")
    net.output(y=net.call(fn, x, shape=SIZE, dtype="int32", name="breaks"))
    with net.compile(backend="cuda", mode=mode) as exe:
        for how in ("run", "submit"):
            with pytest.raises(ZeroDivisionError, match=r"'breaks'.*boom"):
                exe.run(x=X) if how == "run" else exe.submit(x=X).result(20)
        broken[0] = False
        np.testing.assert_array_equal(ag.to_numpy(exe.run(x=X)["y"]), X + 1)


@pytest.mark.parametrize("how", ["run", "submit"])
def test_a_function_that_does_not_return_is_given_up(how: str) -> None:
    hold = [2.0]

    def fn(xp: Any, a: Any, out: Any) -> None:
        time.sleep(hold[0])
        out[...] = a + 1

    net = ag.AsyncNet("hangs")
    x = net.input("x", (SIZE,), "int32")
    net.output(y=net.call(fn, mix(net, x, x, 1), shape=SIZE, dtype="int32", name="sleeper"))
    with net.compile(backend="cuda", mode="serial", timeout_s=0.3) as exe:
        begun = time.monotonic()
        with pytest.raises(ag.DeadlineExceeded, match="'sleeper'"):
            exe.run(x=X, timeout_s=0.3) if how == "run" else exe.submit(x=X).result()
        assert time.monotonic() - begun < 1.5
        hold[0] = 0.0
        assert ag.to_numpy(exe.run(x=X)["y"]).shape == (SIZE,)
        time.sleep(2.0)  # the sleeper wakes up in a slot that was given up, and does no harm
        assert ag.to_numpy(exe.run(x=X)["y"]).shape == (SIZE,)


@pytest.mark.parametrize("mode", MODES)
def test_a_lost_device_is_called_lost(faults: Inject, mode: str) -> None:
    import cupy
    import softcuda

    net = ag.AsyncNet("lost")
    x = net.input("x", (1,), "int32")
    net.output(y=net.kernel(BAD_ADDRESS, "bad", [x], out=((1,), "int32"), grid=1, block=1))
    with net.compile(backend="cuda", mode=mode) as exe:
        given = [cupy.full(1, i, np.int32) for i in range(3)]
        assert exe.run(x=given[0])["y"].get() == [0]
        faults("launch", 0, 0)  # so that the fixture revives the devices afterwards
        for _ in range(2):
            with pytest.raises(
                ag.DeviceError, match=r"the device is lost.*IllegalAddress.*new process"
            ):
                exe.run(x=given[1])
        with pytest.raises(ag.DeviceError, match="the device is lost"):
            exe.run(x=np.ones(1, np.int32))
        softcuda.reset_errors()
        assert exe.run(x=given[2])["y"].get() == [2]


def test_a_kernel_that_does_not_compile_is_the_users_error() -> None:
    net = ag.AsyncNet("typo")
    x = net.input("x", (1,), "int32")
    net.output(y=net.kernel('extern "C" __global__ void k(const int* a, int* o) { o[0] = b; }',
                            "k", [x], out=((1,), "int32"), grid=1, block=1))  # fmt: skip
    with pytest.raises(ag.NetError, match="does not compile"):
        net.compile(backend="cuda", mode="serial")


def test_a_python_number_as_kernel_argument_is_refused() -> None:
    net = ag.AsyncNet("wide")
    x = net.input("x", (1,), "int32")
    net.output(y=net.kernel('extern "C" __global__ void k(const int* a, int n, int* o) {}',
                            "k", [x, 3], out=((1,), "int32"), grid=1, block=1))  # fmt: skip
    with pytest.raises(ag.NetError, match=r"np\.int32"):
        net.compile(backend="cuda", mode="serial")


def row() -> ag.AsyncNet:
    """Steps that are kernels of ours."""
    net = ag.AsyncNet("row")
    x = net.input("x", (SIZE,), "int32")
    net.output(y=net.neg(net.relu(x)))
    return net


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["run", "submit", "traced"])
@pytest.mark.parametrize("make", [row, diamond])  # kernels of ours alone, and the user's
def test_an_input_that_is_never_ready_does_not_hang_the_run(
    mode: str, how: str, make: Callable[[], ag.AsyncNet]
) -> None:
    """The caller's stream is stuck: kernels of ours wait for it, and the host must not."""
    import cupy

    go_on = threading.Event()
    stream = cupy.cuda.Stream(non_blocking=True)
    with make().compile(backend="cuda", mode=mode, timeout_s=0.3) as exe:
        with stream:
            given = cupy.asarray(X)
            stream.launch_host_func(lambda _: go_on.wait(20), None)
            begun = time.monotonic()
            with contextlib.ExitStack() as stack, pytest.raises(ag.DeadlineExceeded):
                if how == "traced":
                    stack.enter_context(exe.trace())
                exe.submit(x=given).result() if how == "submit" else exe.run(x=given)
            assert time.monotonic() - begun < 5
            go_on.set()
            stream.synchronize()
        out = exe.run(x=X, timeout_s=20)
        assert all(ag.to_numpy(value).shape == (SIZE,) for value in out.values())


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("how", ["run", "submit"])
def test_launches_that_the_driver_cannot_take_do_not_hold_the_caller(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a stuck input the driver takes so many launches, and then blocks who makes them."""
    import cupy

    from asyncnet_gpu.backends.cuda import program

    monkeypatch.setattr(program, "_SOON", 1)
    go_on = threading.Event()
    with row().compile(backend="cuda", mode="streams", timeout_s=0.5) as exe:
        slot = exe._engine._free[0].program
        np.testing.assert_array_equal(ag.to_numpy(exe.run(x=X)["y"]), -X)
        launch = slot._issue._short[-1]
        slot._issue._short[-1] = slot._issue._short_master[-1] = lambda: (go_on.wait(20), launch())
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stuck = cupy.asarray(X)
            stream.launch_host_func(lambda _: go_on.wait(20), None)
            begun = time.monotonic()
            with pytest.raises(ag.DeadlineExceeded):
                exe.submit(x=stuck).result() if how == "submit" else exe.run(x=stuck)
            assert time.monotonic() - begun < 5
            go_on.set()
            stream.synchronize()
        np.testing.assert_array_equal(ag.to_numpy(exe.run(x=X, timeout_s=20)["y"]), -X)


def forget_the_driver() -> None:
    """Have every call of the driver fail, in a process that must make none."""
    from cupy.cuda import runtime

    def called(*_: object, **__: object) -> None:
        raise AssertionError("the driver was called")

    for name, value in vars(runtime).items():
        if callable(value) and name[0].islower():
            setattr(runtime, name, called)


@pytest.mark.parametrize("mode", [*MODES, "auto"])
def test_a_forked_child_is_told_that_cuda_does_not_survive(mode: str) -> None:
    with diamond().compile(backend="cuda", mode=mode, slots=2) as exe:
        before = {name: ag.to_numpy(value) for name, value in exe.run(x=X).items()}

        run = exe.submit(x=X)

        def child() -> None:
            forget_the_driver()
            with pytest.raises(ag.RunCancelled, match="goes on in the parent"):
                run.result(0)
            for use in (
                lambda: exe.run(x=X),
                lambda: exe.submit(x=X).result(20),
                lambda: exe.get_parameter("w"),
                lambda: exe.set_parameter("w", X),
                lambda: exe.trace().__enter__(),
                lambda: exe._engine._new_slot(),
                lambda: diamond().compile(backend="cuda", mode=mode),
            ):
                with pytest.raises(ag.DeviceError, match=r"before this process was forked.*spawn"):
                    use()
            exe.close()
            with diamond().compile(backend="auto", mode="serial") as other:
                assert other.backend == "cpu"

        in_child(child)
        run.result(20)
        for name, value in exe.run(x=X).items():
            np.testing.assert_array_equal(ag.to_numpy(value), before[name])
