"""Events as flags: order between threads, limits, leaving, and how far a list has come."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.backends.cpu.events import Events, FlagEvents, LockEvents
from asyncnet_gpu.backends.cpu.native.calls import CallList, written
from asyncnet_gpu.backends.cpu.native.encode import Calls
from asyncnet_gpu.backends.cpu.native.library import (
    DrainError,
    LaneState,
    Library,
    StuckError,
    library,
)

LONG_S = 60.0


@pytest.fixture
def functions() -> Library:
    found = library()
    assert found is not None, "the tests of lists need the compiled library"
    return found


class Party:
    """One thread's list."""

    def __init__(self, functions: Library, events: FlagEvents, items: list[Calls]) -> None:
        self.state = LaneState()
        self.calls = CallList(items, functions, events.state, self.state)
        self.launch = self.calls.whole()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.launch()
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self.thread.join(LONG_S)
        assert not self.thread.is_alive()


def wait(events: FlagEvents, event: int) -> Calls:
    side, _ = events.wait(event)
    assert isinstance(side, Calls)
    return side


def record(events: FlagEvents, event: int) -> Calls:
    side = events.record(event)
    assert isinstance(side, Calls)
    return side


def adding(x: Any, amount: float) -> Calls:
    calls = written(partial(np.add, x, np.float64(amount), out=x))
    assert calls is not None
    return calls


@pytest.mark.parametrize("spin", [True, False])
def test_two_threads_take_turns_thousands_of_times(functions: Library, spin: bool) -> None:
    turns = 2000 if spin else 200
    events = FlagEvents(2 * turns, LONG_S, spin=spin)
    x = np.zeros(3)
    ping: list[Calls] = []
    pong: list[Calls] = []
    for i in range(turns):  # x = (x + 1) * -1, in turns: any other order gives other numbers
        ping += [adding(x, 1.0), record(events, 2 * i), wait(events, 2 * i + 1)]
        turned = written(partial(np.negative, x, out=x))
        assert turned is not None
        pong += [wait(events, 2 * i), turned, record(events, 2 * i + 1)]
    for _ in range(3):  # flags need no clearing between runs
        x[:] = 5.0
        events.begin()
        parties = [Party(functions, events, side) for side in (pong, ping)]
        for party in parties:
            party.thread.start()
        for party in parties:
            party.join()
            assert party.error is None
        assert x.tolist() == [5.0] * 3


@pytest.mark.parametrize("limit_s", [0.05, 0.25])  # without and with looks at signals meanwhile
def test_a_wait_for_what_nobody_records_ends_at_the_limit(
    functions: Library, limit_s: float
) -> None:
    events = FlagEvents(1, limit_s, spin=True)
    events.begin()
    party = Party(functions, events, [wait(events, 0)])
    begun_s = time.monotonic()
    party.thread.start()
    party.join()
    assert isinstance(party.error, StuckError)
    assert time.monotonic() - begun_s >= limit_s
    assert party.state.since == 0


def test_a_list_goes_on_behind_a_wait_that_was_taken_up_again(functions: Library) -> None:
    events = FlagEvents(2, LONG_S, spin=False)
    events.begin()
    x = np.zeros(1)
    items = [adding(x, 1.0), wait(events, 0), adding(x, 2.0), wait(events, 1), adding(x, 4.0)]
    party = Party(functions, events, items)
    party.thread.start()
    until(lambda: party.state.since > 0)
    events.leave(now=False)  # waits for the event all the same
    party.thread.join(0.05)
    assert party.thread.is_alive()
    CallList([record(events, 0)], functions, events.state, LaneState()).whole()()
    party.join()
    assert isinstance(party.error, DrainError)
    assert (x[0], party.state.since) == (1.0, 0)


def test_an_event_of_the_run_before_does_not_count(functions: Library) -> None:
    events = FlagEvents(1, 0.05, spin=False)
    events.begin()
    CallList([record(events, 0)], functions, events.state, LaneState()).whole()()
    ready = events.wait(0)[1]
    assert ready()
    events.begin()
    assert not ready()
    party = Party(functions, events, [wait(events, 0)])
    party.thread.start()
    party.join()
    assert isinstance(party.error, StuckError)


def sleeping(events: FlagEvents) -> bool:
    return events._state.sleepers > 0


def until(condition: Any) -> None:
    limit = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.001)


def test_who_sleeps_is_sent_home_when_all_leave_now(functions: Library) -> None:
    events = FlagEvents(1, LONG_S, spin=False)
    events.begin()
    x = np.zeros(1)
    party = Party(functions, events, [wait(events, 0), adding(x, 1.0)])
    party.thread.start()
    until(lambda: sleeping(events))
    events.leave(now=True)
    party.join()
    assert isinstance(party.error, DrainError)
    assert x[0] == 0.0


def test_leaving_later_waits_for_the_event_first(functions: Library) -> None:
    events = FlagEvents(1, LONG_S, spin=False)
    events.begin()
    x = np.zeros(1)
    party = Party(functions, events, [adding(x, 1.0), wait(events, 0), adding(x, 10.0)])
    party.thread.start()
    until(lambda: sleeping(events))
    events.leave(now=False)
    party.thread.join(0.05)
    assert party.thread.is_alive()  # what comes after the event may still read what is being made
    CallList([record(events, 0)], functions, events.state, LaneState()).whole()()
    party.join()
    assert isinstance(party.error, DrainError)
    assert x[0] == 1.0
    assert party.calls.item_at(party.state.progress) == 1


def test_leaving_now_ends_a_list_between_two_calls(functions: Library) -> None:
    events = FlagEvents(0, LONG_S, spin=False)
    events.begin()
    x = np.zeros(1)
    party = Party(functions, events, [adding(x, 1.0)] * 3)
    events.leave(now=True)
    party.launch()
    assert x[0] == 0.0
    events.begin()
    party.launch()
    assert x[0] == 3.0


def test_progress_tells_the_item_under_way(functions: Library) -> None:
    events = FlagEvents(1, LONG_S, spin=False)
    events.begin()
    x = np.zeros(1)
    items = [adding(x, 1.0), adding(x, 2.0), wait(events, 0), adding(x, 4.0)]
    party = Party(functions, events, items)
    assert party.calls.item_at(0) == 0  # nothing has run
    party.thread.start()
    until(lambda: sleeping(events))
    assert party.calls.item_at(party.state.progress) == 2
    events.give_up()
    party.join()


@pytest.mark.parametrize("kind", ["locks", "flags"])
def test_ready_tells_whether_a_wait_would_end(kind: str, functions: Library) -> None:
    events: Events = (
        LockEvents(2, LONG_S) if kind == "locks" else FlagEvents(2, LONG_S, spin=True)
    )  # fmt: skip
    events.begin()
    readies = [events.wait(event)[1] for event in (0, 1)]
    side = events.record(1)
    assert [ready() for ready in readies] == [False, False]
    if isinstance(events, FlagEvents):
        assert isinstance(side, Calls)
        CallList([side], functions, events.state, LaneState()).whole()()
    else:
        assert callable(side)
        side()
    assert [ready() for ready in readies] == [False, True]


def test_a_failed_step_in_python_reaches_the_lists_and_the_next_run_is_whole() -> None:
    fails = [False]

    def double(xp: Any, a: Any, out: Any) -> None:
        if fails[0]:
            raise ValueError("asked to")
        xp.add(a, a, out=out)

    net = ag.AsyncNet("fails")
    x = net.input("x", (200_000,), "float64")
    left = net.call(double, net.tanh(x), shape=(200_000,), dtype="float64", name="left")
    right = x
    for i in range(6):
        right = net.tanh(net.exp(right), name=f"right{i}")
    met = net.add(left, right, name="met")
    for i in range(3):
        met = net.exp(net.tanh(met), name=f"met{i}")
    net.output(y=met)
    value = np.full(200_000, 0.25)
    with net.compile(backend="cpu", mode="streams", slots=1, allocator="exact") as exe:
        assert len(exe.plan.streams) > 1
        whole = exe.run(x=value)["y"]
        for _ in range(3):
            fails[0] = True
            with pytest.raises(ValueError, match="asked to"):
                exe.run(x=value)
            fails[0] = False
            np.testing.assert_array_equal(exe.run(x=value)["y"], whole)


def test_a_cancelled_run_does_not_reach_the_update_at_its_end() -> None:
    net = ag.AsyncNet("long")
    x = net.input("x", (400_000,), "float64")
    w = net.parameter("w", np.ones(400_000))
    h = x
    for i in range(400):
        h = net.exp(net.tanh(h), name=f"h{i}")
    net.output(y=net.sgd_update(w, h, net.constant(np.float64(0.5))))
    with net.compile(backend="cpu", mode="serial") as exe:
        running = exe.submit(x=np.ones(400_000))
        assert running.cancel()
        with pytest.raises(ag.RunCancelled):
            running.result(LONG_S)
        np.testing.assert_array_equal(exe.get_parameter("w"), 1.0)  # far away when it is cancelled
        assert (exe.run(x=np.ones(400_000))["y"] != 1.0).all()
