"""Rounds: order, priming, loud rounds, threads bound to cores and set free again."""

from __future__ import annotations

import os
import threading
from collections import Counter

import pytest

from benchmarks import harness
from benchmarks.harness import QuietRounds, interleave, pinned_threads


def test_every_round_calls_everybody_once_in_its_own_order() -> None:
    calls: list[str] = []
    names = "abcde"
    timings = interleave(
        {n: lambda n=n: calls.append(n) for n in names}, rounds=8, warm_ups=2, seed=1
    )
    rounds = [calls[i : i + 5] for i in range(0, len(calls), 5)]
    assert len(rounds) == 10
    assert all(sorted(r) == list(names) for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1
    assert all(len(timings[n].seconds) == 8 for n in names)


def test_without_a_seed_the_order_is_kept() -> None:
    calls: list[str] = []
    interleave({n: lambda n=n: calls.append(n) for n in "ab"}, rounds=2, warm_ups=1)
    assert calls == list("ababab")


def test_priming_calls_twice_and_times_once() -> None:
    calls: Counter[str] = Counter()
    timings = interleave({"a": lambda: calls.update("a")}, rounds=3, warm_ups=0, prime_s=0.0)
    assert calls["a"] == 6
    assert len(timings["a"].seconds) == 3


def test_loud_rounds_are_repeated_until_the_budget_is_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Others take all cores in the second round.
    busy_s = iter([0.0, 0.0, 1.0, 99.0, 100.0, 100.0, 101.0, 101.0])
    monkeypatch.setattr(harness, "_foreign_cpu_s", lambda: next(busy_s))
    n_calls = Counter[str]()
    quiet = QuietRounds(budget_s=20)
    timings = interleave({"a": lambda: n_calls.update("a")}, rounds=3, warm_ups=0, quiet=quiet)
    assert n_calls["a"] == 4
    assert len(timings["a"].seconds) == 3
    assert quiet.summary() == {
        "foreign_cpu_median": 0.0, "foreign_cpu_worst": 0.0, "rounds_repeated": 1
    }  # fmt: skip


def test_with_no_budget_loud_rounds_count_and_are_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy_s = iter(range(0, 1000, 50))
    monkeypatch.setattr(harness, "_foreign_cpu_s", lambda: float(next(busy_s)))
    quiet = QuietRounds(budget_s=0)
    interleave({"a": lambda: None}, rounds=2, warm_ups=0, quiet=quiet)
    assert quiet.n_repeated == 0
    assert quiet.summary()["foreign_cpu_worst"] > 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binding threads is for Linux")
def test_threads_are_bound_and_set_free() -> None:
    before = os.sched_getaffinity(0)
    end, started = threading.Event(), threading.Event()
    seen: list[set[int]] = []

    def work() -> None:
        started.set()
        end.wait(30)
        seen.append(os.sched_getaffinity(0))

    threads = [threading.Thread(target=work, name=f"asyncnet-cpu:0/{i}") for i in range(2)]
    for thread in threads:
        thread.start()
    started.wait(30)
    with pinned_threads():
        cores = {thread.name: os.sched_getaffinity(thread.native_id or 0) for thread in threads}
        assert len(os.sched_getaffinity(0)) == 1
        assert all(len(c) == 1 for c in cores.values())
        if len(before) > 1:
            assert cores["asyncnet-cpu:0/0"] != cores["asyncnet-cpu:0/1"]
    assert os.sched_getaffinity(0) == before
    end.set()
    for thread in threads:
        thread.join(30)
    assert seen == [before, before]
