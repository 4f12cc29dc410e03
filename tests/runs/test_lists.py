"""Lists of calls in runs that fail, are cancelled, interrupted or late: none hangs or is mixed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.backends.base import Execution
from asyncnet_gpu.backends.cpu.lanes import leave
from asyncnet_gpu.backends.cpu.program import CpuProgram
from asyncnet_gpu.backends.cpu.recording import Kind, LaneRecorder
from tests.helpers.threads import in_thread

LONG_S = 30.0
N = 20_000  # of float64: larger than what is staged
X = np.linspace(0.0, 1.0, N)


@pytest.fixture(params=["lists", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without the compiled library: what a run owes is the same."""
    if request.param == "python":
        monkeypatch.setenv("ASYNCNET_NATIVE", "0")
    return str(request.param)


class Step:
    """A function of the user's in the middle of lists, which waits or fails when told to."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.calls = 0

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        self.calls += 1
        self.begun.set()
        self.gate.wait(LONG_S)
        self.ended.set()
        if self.error is not None:
            raise self.error
        xp.add(a, 1.0, out=out)


@pytest.fixture
def step() -> Iterator[Step]:
    made = Step()
    yield made
    made.gate.set()


def two_streams(step: Step, met: Step | None = None) -> ag.AsyncNet:
    """A stream of lists that waits for one with `step` in it."""
    net = ag.AsyncNet("two")
    x = net.input("x", (N,), "float64")
    right = x
    for i in range(4):
        right = net.tanh(net.exp(right), name=f"right{i}")
    left = net.call(step, net.tanh(x), shape=(N,), dtype="float64", name="left")
    y = net.add(left, right, name="sum")
    if met is not None:
        y = net.call(met, y, shape=(N,), dtype="float64", name="met")
    net.output(y=net.neg(y))
    net.output(r=right)
    return net


def wanted(x: Any) -> dict[str, Any]:
    right = x
    for _ in range(4):
        right = np.tanh(np.exp(right))
    return {"y": -(np.tanh(x) + 1.0 + right), "r": right}


def compiled(net: ag.AsyncNet, **given: Any) -> Any:
    given = {"mode": "streams", "allocator": "exact", "timeout_s": LONG_S, "slots": 1, **given}
    exe = net.compile(backend="cpu", **given)
    assert given["mode"] == "serial" or len(exe.plan.streams) == 2
    return exe


def program_of(exe: Any) -> CpuProgram:
    program = exe._engine._free[-1].program
    assert isinstance(program, CpuProgram)
    return program


def is_right(outputs: dict[str, Any], x: Any = X) -> None:
    for key, value in wanted(x).items():
        np.testing.assert_array_equal(outputs[key], value)


# -- limits ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
def test_only_what_hangs_is_blamed_neither_who_waits_nor_who_has_ended(step: Step) -> None:
    net = ag.AsyncNet("ended")
    x = net.input("x", (N,), "float64")
    net.output(a=net.call(step, x, shape=(N,), dtype="float64", name="left"))
    net.output(b=net.exp(net.tanh(net.exp(x)), name="right"))
    with compiled(net) as exe:
        step.gate.clear()
        with pytest.raises(ag.DeadlineExceeded) as caught:
            exe.run(x=X, timeout_s=0.2)
        assert "'left'" in str(caught.value)
        assert "'right'" not in str(caught.value)
    with compiled(two_streams(step)) as exe:
        with pytest.raises(ag.DeadlineExceeded) as caught:
            exe.run(x=X, timeout_s=0.2)
        assert str(caught.value).count("step ") == 1
        assert "'left'" in str(caught.value)


@pytest.mark.usefixtures("way")
def test_a_run_that_is_given_up_before_its_threads_woke_up(step: Step) -> None:
    before = threading.active_count()
    with compiled(two_streams(step)) as exe:
        for _ in range(30):
            with pytest.raises(ag.DeadlineExceeded):
                exe.run(x=X, timeout_s=0.0)
        is_right(exe.run(x=X))
    limit = time.monotonic() + LONG_S
    while threading.active_count() > before:  # each of them stops, though woken before it was told
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.usefixtures("way")
def test_a_single_stream_may_take_any_time() -> None:
    with compiled(two_streams(Step()), mode="serial", timeout_s=float("inf")) as exe:
        is_right(exe.run(x=X))


@pytest.mark.usefixtures("way")
def test_no_memory_for_the_outputs_is_the_error_of_the_run(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise MemoryError("no room")

    with compiled(two_streams(step)) as exe:
        bound = program_of(exe)._bound
        with monkeypatch.context() as patched:
            patched.setattr(bound, "outputs", none)
            with pytest.raises(MemoryError, match="no room"):
                exe.submit(x=X).result(5)
        is_right(exe.submit(x=X).result(5))


def test_no_memory_for_the_times_of_a_list_is_the_error_of_the_run(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out = LaneRecorder.carry_out_list

    def fail(recorder: Any, instruction: Any, calls: Any, lane: Any, meaning: Any) -> None:
        if meaning[0][0] is Kind.RECORD:  # for which the other stream waits
            raise MemoryError("no room")
        carry_out(recorder, instruction, calls, lane, meaning)

    with compiled(two_streams(step), timeout_s=3.0) as exe, exe.trace():
        with monkeypatch.context() as patched:
            patched.setattr(LaneRecorder, "carry_out_list", fail)
            with pytest.raises(MemoryError, match="no room"):
                exe.run(x=X)
        is_right(exe.run(x=X))


@pytest.mark.usefixtures("way")
def test_closing_at_the_end_of_a_run(step: Step) -> None:
    exe = compiled(two_streams(step))
    step.gate.clear()
    run = exe.submit(x=X)
    closed: list[BaseException | None] = []

    def close(_: object) -> None:
        try:
            exe.close()  # in the thread of a stream, which is to be stopped by it
        except BaseException as error:
            closed.append(error)
        else:
            closed.append(None)

    run.add_done_callback(close)
    step.gate.set()
    is_right(run.result(LONG_S))
    limit = time.monotonic() + LONG_S
    while not closed:
        assert time.monotonic() < limit
        time.sleep(0.001)
    assert closed == [None]


# -- cancelling --------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
def test_cancelling_the_run_before_leaves_the_next_alone(step: Step) -> None:
    with compiled(two_streams(step)) as exe:
        program = program_of(exe)
        is_right(exe.run(x=X))
        with program._lock:  # a cancel of that run, which is still the program's last one
            thread, results = in_thread(lambda: exe.run(x=X + 1))
            thread.join(0.1)
            assert not results  # or the lists would be replaced under it
            program._run_empty()
        thread.join(LONG_S)
        is_right(results[0], X + 1)


@pytest.mark.usefixtures("way")
def test_a_run_that_is_cancelled_before_it_begins_does_nothing(step: Step) -> None:
    with compiled(two_streams(step)) as exe:
        program = program_of(exe)
        execution = Execution({"x": X})
        program.cancel(execution)
        assert program.execute(execution, None)
        assert execution.cancelled
        assert (execution.outputs, execution.errors, step.calls) == ({}, [], 0)
        is_right(exe.run(x=X))


@pytest.mark.usefixtures("way")
def test_a_run_that_is_cancelled_while_its_inputs_are_taken_does_nothing(
    monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    net = ag.AsyncNet("first")
    x = net.input("x", (N,), "float64")
    net.output(y=net.call(step, x, shape=(N,), dtype="float64"))
    with compiled(net, mode="serial") as exe:
        program = program_of(exe)
        execution = Execution({"x": X})
        take = program._bound.set_inputs

        def cancelled(inputs: Any) -> Any:
            program.cancel(execution)
            return take(inputs)  # binds `step`, whose launch has been taken away

        with monkeypatch.context() as patched:
            patched.setattr(program._bound, "set_inputs", cancelled)
            assert program.execute(execution, None)
        assert step.calls == 0
        assert exe.run(x=X)["y"][0] == 1.0


def test_no_launch_of_a_cancelled_run_reads_what_was_never_made(step: Step) -> None:
    with compiled(two_streams(step)) as exe:
        program = program_of(exe)
        is_right(exe.run(x=X))
        last = program._current
        assert last is not None
        told: list[bool] = []

        def left(*, now: bool) -> None:
            # Waits end the lists before any lane runs empty, lists end early when all of them do.
            told.append(now)
            for lane in program._lanes:
                for instruction, (kind, _) in zip(lane.instructions, lane.meaning, strict=True):
                    assert kind is not Kind.RUN or (instruction is leave) is now

        program._events.leave = left  # type: ignore[method-assign]
        program.cancel(last)
        assert told == [False, True]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seed", range(4))
def test_cancelling_in_a_hostile_order(seed: int) -> None:
    step = Cancelling()
    with compiled(two_streams(step), adversary_seed=seed) as exe:
        is_right(exe.run(x=X))
        step.program = program_of(exe)
        with pytest.raises(ag.RunCancelled):
            exe.run(x=X)
        step.program = None
        is_right(exe.run(x=X))


class Cancelling(Step):
    """Cancels the run that it belongs to, in the middle of it."""

    program: CpuProgram | None = None

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        super().__call__(xp, a, out)
        if self.program is not None:
            assert self.program._current is not None
            self.program.cancel(self.program._current)


# -- signals -----------------------------------------------------------------------------------


def send(number: int, step: Step) -> None:
    """Send a signal once the step has begun and the other stream waits for it."""
    assert step.begun.wait(LONG_S)
    time.sleep(0.1)
    os.kill(os.getpid(), number)


@pytest.fixture
def keyboard() -> Iterator[None]:
    """Let SIGINT interrupt: for jobs in the background the shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("way", "keyboard")
@pytest.mark.parametrize("traced", [False, True])
def test_the_keyboard_interrupts_who_waits_for_another_stream(step: Step, traced: bool) -> None:
    with compiled(two_streams(step)) as exe, exe.trace() if traced else nullcontext():
        step.gate.clear()
        step.begun.clear()
        in_thread(lambda: send(signal.SIGINT, step))
        with pytest.raises(KeyboardInterrupt):
            exe.run(x=X)
        assert not step.ended.is_set()
        step.gate.set()
        is_right(exe.run(x=X))


class SignalError(Exception):
    """Raised by a handler."""


@pytest.mark.usefixtures("way")
def test_what_a_handler_of_a_signal_raises_is_the_error_of_a_run(step: Step) -> None:
    def handle(*_: object) -> None:
        step.gate.set()
        raise SignalError("look here")

    met = Step()
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with compiled(two_streams(step, met)) as exe:
            step.gate.clear()
            in_thread(lambda: send(signal.SIGUSR1, step))
            with pytest.raises(SignalError, match="look here"):
                exe.run(x=X)
            assert met.calls == 0  # it needs the step whose wait was interrupted
            assert exe.run(x=X)["y"].shape == (N,)
            assert met.calls == 1
    finally:
        signal.signal(signal.SIGUSR1, before)


# -- many ----------------------------------------------------------------------------------------

RUNS = int(os.environ.get("ASYNCNET_LIST_RUNS", "300"))
ENDS = (ag.RunCancelled, ag.DeadlineExceeded, ZeroDivisionError)


class Moody(Step):
    """Fails or takes its time at random; notes what it should never have been given."""

    def __init__(self, seed: int, legal: list[Any]) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.legal = {x.tobytes() for x in legal}
        self.illegal = 0

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        self.illegal += a.tobytes() not in self.legal
        chance = self.rng.random()
        if chance < 0.1:
            raise ZeroDivisionError("by chance")
        if chance < 0.3:
            time.sleep(self.rng.random() * 3e-3)
        xp.add(a, 1.0, out=out)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("traced", [False, True])
def test_runs_that_end_in_any_way_are_right_or_raise(traced: bool) -> None:
    rng = random.Random(17)
    inputs = [X + i for i in range(5)]
    right = [wanted(x) for x in inputs]
    moody = Moody(4, [np.tanh(x) for x in inputs])
    ended = Counter[str]()
    with (
        compiled(two_streams(moody), slots=2, queue=4) as exe,
        exe.trace() if traced else nullcontext(),
    ):
        flying: deque[tuple[int, Any]] = deque()
        for _ in range(RUNS):
            i = rng.randrange(len(inputs))
            if rng.random() < 0.2:
                limit_s = rng.choice([None, 0.0, 1e-3, 3e-3])
                try:
                    got = exe.run(x=inputs[i], timeout_s=limit_s)
                except ENDS as error:
                    ended[type(error).__mro__[1].__name__] += 1
                    continue
                compare(got, right[i])
                continue
            flying.append((i, exe.submit(x=inputs[i])))
            if rng.random() < 0.4:
                if rng.random() < 0.7:
                    time.sleep(rng.random() * 2e-3)
                rng.choice(flying)[1].cancel()
            while len(flying) > 3:
                collect(*flying.popleft(), right, ended)
        for i, run in flying:
            collect(i, run, right, ended)
        assert len(ended) > 2
    assert moody.illegal == 0


def collect(i: int, run: Any, right: list[dict[str, Any]], ended: Counter[str]) -> None:
    try:
        compare(run.result(LONG_S), right[i])
    except ENDS as error:
        ended[type(error).__name__] += 1
    else:
        ended["whole"] += 1


def compare(got: dict[str, Any], right: dict[str, Any]) -> None:
    for key, value in right.items():
        np.testing.assert_array_equal(got[key], value)
