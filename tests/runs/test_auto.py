"""`mode="auto"` while several threads run: nobody waits for who measures, nothing is mixed up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from helpers.threads import in_thread

import asyncnet_gpu as ag
from asyncnet_gpu import auto
from asyncnet_gpu.auto import Chooser
from asyncnet_gpu.profiling import RUNS, Remade

X = np.ones(4, np.float32)


class Gate:
    """An operator that waits for the test, the first time."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self._first = True

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        first, self._first = self._first, False
        if first:
            self.entered.set()
            assert self.open.wait(30)
        out[...] = a + 1


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def wide(gate: Gate, *, state: bool = False) -> ag.AsyncNet:
    """Two branches that the model believes worth two streams."""
    net = ag.AsyncNet("wide")
    x = net.input("x", (4,), "float32")
    big = net.parameter("big", np.ones((512, 512), np.float32))
    net.output(net.call(gate, x, shape=4, dtype="float32", name="y"))
    for side in "ab":
        net.output(**{side: net.matmul(net.matmul(big, big), big)})
    if state:
        total = net.parameter("total", np.zeros(4, np.float32))
        net.output(total=net.assign_add(total, net.blob("y")))
    return net


def test_a_run_does_not_wait_for_the_one_that_measures(gate: Gate) -> None:
    with wide(gate).compile(backend="cpu", mode="auto", slots=2) as exe:
        assert len(exe._engines) == 2, "the net must leave auto a choice"
        thread, results = in_thread(lambda: exe.run(x=X))
        assert gate.entered.wait(10)
        assert exe.run(x=X)["y"].tolist() == [2, 2, 2, 2]
        assert thread.is_alive()
        gate.open.set()
        thread.join(10)
        assert results[0]["y"].tolist() == [2, 2, 2, 2]


def test_submitting_does_not_wait_for_the_one_that_measures(gate: Gate) -> None:
    with wide(gate).compile(backend="cpu", mode="auto", slots=2) as exe:
        thread, results = in_thread(lambda: exe.run(x=X))
        assert gate.entered.wait(10)
        other, submitted = in_thread(lambda: exe.submit(x=X).result(20))
        gate.open.set()
        for t in (thread, other):
            t.join(20)
            assert not t.is_alive()
        assert results[0]["y"].tolist() == submitted[0]["y"].tolist() == [2, 2, 2, 2]
        assert "several runs in flight" in exe.why


def test_runs_that_update_a_state_take_turns_across_modes(gate: Gate) -> None:
    gate.open.set()
    with wide(gate, state=True).compile(backend="cpu", mode="auto") as exe:
        threads = [
            in_thread(lambda: [exe.run(x=X)["total"][0] for _ in range(8)]) for _ in range(4)
        ]
        seen: list[float] = []
        for thread, results in threads:
            thread.join(60)
            assert isinstance(results[0], list), results
            seen += results[0]
        assert sorted(seen) == [2.0 * i for i in range(1, 33)]
        assert exe.get_parameter("total").tolist() == [64.0] * 4


def test_waiting_for_a_turn_has_a_limit(gate: Gate) -> None:
    with wide(gate, state=True).compile(backend="cpu", mode="auto", timeout_s=30) as exe:
        thread, _ = in_thread(lambda: exe.run(x=X))
        assert gate.entered.wait(10)
        with pytest.raises(ag.DeadlineExceeded, match="updates a state does not end"):
            exe.run(x=X, timeout_s=0.05)
        gate.open.set()
        thread.join(10)


def test_many_threads_from_the_first_run_on(gate: Gate) -> None:
    gate.open.set()
    with wide(gate).compile(backend="cpu", mode="auto", slots=2) as exe:
        threads = [in_thread(lambda: [exe.run(x=X)["y"][0] for _ in range(25)]) for _ in range(4)]
        for thread, results in threads:
            thread.join(60)
            assert results == [[2.0] * 25]
        for _ in range(60):
            exe.run(x=X)
        assert len(exe._engines) == 1
        assert "measured" in exe.why


def test_disturbed_samples_are_dropped_and_after_many_the_prior_is_kept() -> None:
    chooser = Chooser(["serial", "streams"], "predicted", first="streams")
    for _ in range(29):
        with chooser.turn(), chooser.turn() as beside:
            assert beside == "streams"
    assert chooser.seconds == {"serial": [], "streams": []}
    assert not chooser.decided
    with chooser.turn():
        pass
    assert len(chooser.seconds["serial"]) == 1
    with chooser.turn(), chooser.turn():
        pass
    assert chooser.decided
    assert chooser.choice == "streams"
    assert "several threads run at a time" in chooser.why


def test_the_faster_mode_is_kept_and_a_tie_goes_to_the_simpler() -> None:
    for slow, fast in (("serial", "streams"), ("streams", "serial")):
        chooser = Chooser(["serial", "streams"], "predicted", first=slow)
        chooser.seconds = {slow: [2.0] * 9, fast: [1.0] * 9}
        chooser._decide(7)
        assert chooser.choice == fast
    chooser = Chooser(["serial", "streams"], "predicted", first="streams")
    chooser.seconds = {"serial": [1.0] * 9, "streams": [0.99] * 9}
    chooser._decide(7)
    assert chooser.choice == "serial"
    # Warm-up runs do not count: with them the median of the first would be 5.
    chooser.seconds = {"serial": [9.0] * 2 + [1.0] * 4 + [5.0] * 3, "streams": [3.0] * 9}
    chooser._decide(7)
    assert chooser.choice == "serial"


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


def measured(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, list[float]]) -> Chooser:
    """Return a chooser after rounds in which runs took so long."""
    clock = Clock()
    monkeypatch.setattr(auto, "time", clock)
    modes = list(seconds)
    chooser = Chooser(modes, "predicted", first=modes[-1])
    for times in zip(*seconds.values(), strict=True):
        for mode, passes_s in zip(modes, times, strict=True):
            assert not chooser.decided
            with chooser.turn() as taken:
                assert taken == mode
                clock.now_s += passes_s
    assert chooser.decided
    return chooser


def test_a_neighbour_who_comes_in_the_middle_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    warm_up = [9.0, 9.0]
    # He takes two thirds of the machine from between the runs of the fourth timed round on: the
    # median of one mode is of before, that of the other of after.
    serial = [1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0]
    streams = [0.9, 0.9, 0.9, 2.7, 2.7, 2.7, 2.7]
    chooser = measured(monkeypatch, {"serial": warm_up + serial, "streams": warm_up + streams})
    assert chooser.choice == "streams"
    assert chooser.why.endswith("serial 1000.000 ms, streams 2700.000 ms (0.90 of serial)")
    # And when he leaves, with the modes the other way round.
    slower = [1.1 * t for t in serial[::-1]]
    chooser = measured(monkeypatch, {"serial": warm_up + serial[::-1], "streams": warm_up + slower})
    assert chooser.choice == "serial"


def test_a_lucky_run_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    warm_up = [0.1, 0.1]  # nor does a lucky start
    streams = [4.0, 0.5, 4.0, 4.0, 0.5, 4.0, 0.5]
    chooser = measured(
        monkeypatch, {"serial": [1.0] * 9, "streams": warm_up + streams, "graph": [0.97] * 9}
    )
    assert chooser.choice == "graph"
    assert "streams 4000.000 ms (4.00 of serial), graph 970.000 ms (0.97 of serial)" in chooser.why


# -- profiled runs -----------------------------------------------------------------------------


class Sleeper:
    """A function that takes a while, of which no model knows anything."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.fails = False

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        if self.seconds:  # even no sleep takes as long as a hand-over
            time.sleep(self.seconds)
        if self.fails:
            raise ValueError("asked to")
        out[...] = a + 1


def sleepers(seconds: float, n: int = 3) -> tuple[ag.AsyncNet, Sleeper]:
    net, sleeper = ag.AsyncNet("sleepers"), Sleeper(seconds)
    x = net.input("x", (4,), "float32")
    for i in range(n):
        net.output(**{f"y{i}": net.call(sleeper, x, shape=4, dtype="float32", name=f"sleep{i}")})
    return net, sleeper


def test_a_fast_net_is_measured_for_longer_and_its_first_runs_do_not_count() -> None:
    chooser = Chooser(["serial", "streams"], "predicted")
    n = 0
    while not chooser.decided:
        # A core that wakes up: streams are slower for the first runs, and faster ever after.
        seconds = {"serial": 2e-3, "streams": 3e-3 if n < 20 else 1e-3}
        with chooser.lock:
            mode = min(chooser.modes, key=lambda m: len(chooser.seconds[m]))
            chooser._note(mode, seconds[mode], disturbed=False)
        n += 1
        assert n < 100
    assert n > 18
    assert chooser.choice == "streams"


def test_a_slow_net_is_measured_no_longer_than_it_must() -> None:
    chooser = Chooser(["serial", "streams"], "predicted")
    for _ in range(18):
        assert not chooser.decided
        mode = min(chooser.modes, key=lambda m: len(chooser.seconds[m]))
        chooser._note(mode, 1.0, disturbed=False)
    assert chooser.decided
    assert chooser.choice == "serial"


def until_decided(exe: ag.Executable) -> int:
    for n in range(100):
        if exe._chooser.decided:
            return n
        assert all((y == 2).all() for y in exe.run(x=X).values())
    raise AssertionError("auto never decides")


def test_streams_are_found_where_the_model_sees_nothing_to_overlap() -> None:
    net, _ = sleepers(0.01)
    with net.compile(backend="cpu", mode="streams") as modelled:
        assert len(modelled.plan.streams) == 1
    with net.compile(backend="cpu") as exe:
        assert list(exe._engines) == ["serial"]
        assert until_decided(exe) > RUNS
        assert exe.mode == "streams"
        assert len(exe.plan.streams) == 2
        assert exe.why.startswith("measured")


def test_what_takes_no_time_stays_in_one_stream() -> None:
    net, _ = sleepers(0.0)
    with net.compile(backend="cpu") as exe:
        assert until_decided(exe) == RUNS
        assert exe.mode == "serial"
        assert "by measured times" in exe.why


def test_a_run_that_fails_is_not_counted_as_profiled() -> None:
    net, sleeper = sleepers(0.01)
    with net.compile(backend="cpu") as exe:
        exe.run(x=X)
        sleeper.fails = True
        for _ in range(3):
            with pytest.raises(ValueError, match="asked to"):
                exe.run(x=X)
        sleeper.fails = False
        assert exe._chooser.to_profile == RUNS - 1
        until_decided(exe)
        assert exe.mode == "streams"


def test_a_mode_for_which_there_is_no_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    net, _ = sleepers(0.01)
    with net.compile(backend="cpu") as exe:
        remake = exe._remake
        assert remake is not None

        def full() -> Any:
            raise ag.DeviceError("full")

        def remade(seconds: Mapping[str, float]) -> dict[str, Remade]:
            return {mode: Remade(found.plan, full) for mode, found in remake(seconds).items()}

        monkeypatch.setattr(exe, "_remake", remade)
        assert until_decided(exe) == RUNS
        assert exe.mode == "serial"
        assert "streams left out: full" in exe.why


def test_threads_that_run_while_the_modes_are_planned_anew() -> None:
    net, _ = sleepers(0.002)
    with net.compile(backend="cpu", slots=2) as exe:
        threads = [in_thread(lambda: [exe.run(x=X)["y1"][0] for _ in range(20)]) for _ in range(4)]
        for thread, results in threads:
            thread.join(60)
            assert results == [[2.0] * 20]


def test_submitting_ends_the_profile() -> None:
    net, _ = sleepers(0.002)
    with net.compile(backend="cpu") as exe:
        exe.run(x=X)
        assert exe.submit(x=X).result(20)["y0"].tolist() == [2] * 4
        assert exe._chooser.decided
        assert exe.run(x=X)["y0"].tolist() == [2] * 4


def test_what_was_measured_by_hand_is_not_profiled_again() -> None:
    net, _ = sleepers(0.01)
    with net.compile(backend="cpu", mode="serial") as exe:
        measured = exe.report(x=X).node_seconds
    with net.compile(backend="cpu", measured=measured) as exe:
        assert list(exe._engines) == ["serial", "streams"]
        assert exe._chooser.to_profile == 0


def test_runs_that_update_a_state_are_profiled_in_turn() -> None:
    net, _ = sleepers(0.002)
    total = net.parameter("total", np.zeros(4, np.float32))
    net.output(total=net.assign_add(total, net.blob("sleep0")))
    with net.compile(backend="cpu", mode="auto") as exe:
        threads = [
            in_thread(lambda: [exe.run(x=X)["total"][0] for _ in range(8)]) for _ in range(4)
        ]
        seen: list[float] = []
        for thread, results in threads:
            thread.join(60)
            assert isinstance(results[0], list), results
            seen += results[0]
        assert sorted(seen) == [2.0 * i for i in range(1, 33)]


def test_a_mode_that_only_the_estimates_believe_in_is_tried(
    monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    gate.open.set()
    with wide(gate).compile(backend="cpu") as exe:
        monkeypatch.setattr(exe, "_remake", lambda seconds: {})
        for _ in range(RUNS):
            exe.run(x=X)
        assert exe._chooser.to_profile == 0
        assert list(exe._engines) == ["serial", "streams"]
        assert exe._chooser.modes == ("serial", "streams")
