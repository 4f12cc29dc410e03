"""Gaps in a schedule: who fits goes in, who does not goes to the end, and order follows time."""

from __future__ import annotations

import itertools
import random

import pytest

from asyncnet_gpu.plan import schedule
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.schedule import Scheduler, Work, rank_order, upward_ranks

KIND = (0, "compute")


def model(handoff_s: float = 0.0) -> DeviceModel:
    return DeviceModel(
        flops_per_s=1.0, bytes_per_s=1.0, launch_s=0.0, fixed_s=0.0, handoff_s=handoff_s,
        copy_bytes_per_s=1.0, lanes=2,
    )  # fmt: skip


def scheduled(
    seconds: list[float], before: list[list[int]], handoff_s: float = 0.0, streams: int = 2
) -> Scheduler:
    made = Scheduler(Work(seconds, [False] * len(seconds)), model(handoff_s))
    for node in rank_order(upward_ranks(seconds, before)):
        made.put(node, before[node], KIND, streams)
    return made


def check(made: Scheduler, before: list[list[int]], handoff_s: float = 0.0) -> None:
    """Nobody starts before its predecessors have ended, nor two at a time on one stream."""
    for node, others in enumerate(before):
        for other in others:
            price = 0.0 if made.stream_of[other] == made.stream_of[node] else handoff_s
            assert made.starts[node] >= made.ends[other] + price - 1e-9
    for stream in range(len(made.free)):
        own = [n for n, s in enumerate(made.stream_of) if s == stream]
        own.sort(key=lambda n: (made.starts[n], made.ends[n]))
        for first, second in itertools.pairwise(own):
            assert made.ends[first] <= made.starts[second] + 1e-9


def test_a_short_branch_fills_the_time_in_which_others_wait() -> None:
    # A long head, then two branches; a branch of its own is less urgent than all of them. At the
    # end of a stream it would make the whole 19 instead of 15.
    seconds, before = [10.0, 5.0, 5.0, 4.0], [[], [0], [0], []]
    made = scheduled(seconds, before)
    check(made, before)
    assert made.starts[3] == 0.0
    assert made.stream_of[3] != made.stream_of[0]
    assert made.makespan_s == 15.0


def test_who_does_not_fit_goes_to_the_end() -> None:
    seconds, before = [3.0, 5.0, 5.0, 4.0], [[], [0], [0], []]
    made = scheduled(seconds, before)
    check(made, before)
    assert made.starts[3] == 8.0


def test_a_gap_is_split_and_used_again() -> None:
    seconds, before = [10.0, 5.0, 5.0, 4.0, 3.0, 2.0], [[], [0], [0], [], [], []]
    made = scheduled(seconds, before)
    check(made, before)
    assert sorted(made.starts[n] for n in (3, 4, 5)) == [0.0, 4.0, 7.0]
    assert made.makespan_s == 15.0


def test_a_gap_after_a_hand_over_counts_its_price() -> None:
    seconds, before = [10.0, 5.0, 5.0, 4.0, 4.0], [[], [0], [0], [], [3]]
    made = scheduled(seconds, before, handoff_s=1.5)
    check(made, before, handoff_s=1.5)
    assert made.makespan_s == pytest.approx(16.5)


@pytest.mark.parametrize("seed", range(60))
def test_random_schedules_keep_the_order_of_dependencies_and_streams(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randrange(2, 60)
    seconds = [rng.choice([0.0, 1.0, rng.random() * 8]) for _ in range(n)]
    before = [sorted(rng.sample(range(i), min(i, rng.randrange(3)))) for i in range(n)]
    handoff_s = rng.choice([0.0, 0.7])
    made = scheduled(seconds, before, handoff_s, streams=rng.randrange(1, 5))
    check(made, before, handoff_s)
    ranks = upward_ranks(seconds, before)
    assert made.makespan_s >= max(ranks) - 1e-9
    assert all(len(g) <= schedule._MOST_GAPS for g in made.gaps)
    position = {node: i for i, node in enumerate(made.assignment(ranks).order)}
    assert all(position[p] < position[i] for i in range(n) for p in before[i])


def test_many_gaps_are_forgotten_shortest_first() -> None:
    # One stream, made by hand: gaps of 1, 2, ... 40.
    made = Scheduler(Work([1.0] * 40, [False] * 40), model())
    made.open(KIND)
    for i in range(40):
        made._place(i, 0, made.free[0] + i + 1)
    assert sorted(round(end - begin) for begin, end in made.gaps[0]) == list(range(25, 41))
