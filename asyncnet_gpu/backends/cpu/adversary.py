"""A hostile order of steps, legal under the plan's streams and events alone.

One thread plays all lanes and picks, with a seed, which goes on: at random, one lane as late as
possible, or always the same lane as long as it can. A plan that lacks a wait then reads what has
not been written, which the caller has filled with NaN, for some seed on any machine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from asyncnet_gpu.backends.base import Execution
from asyncnet_gpu.backends.cpu.lanes import Lane
from asyncnet_gpu.errors import InternalError


def _can_go(lane: Lane, position: int) -> bool:
    ready = lane.ready.get(position)
    return ready is None or ready()


def _pick(ready: list[int], last: int, victim: int, policy: int, rng: random.Random) -> int:
    if policy == 1:  # starve one lane
        others = [lane for lane in ready if lane != victim]
        return rng.choice(others or ready)
    if policy == 2 and last in ready:  # run ahead on one lane
        return last
    return rng.choice(ready)


def run_adversarially(lanes: Sequence[Lane], execution: Execution, seed: tuple[int, int]) -> None:
    """Work all lanes off in this thread; errors go into `execution`."""
    rng = random.Random(hash(seed))
    policy, victim, last = rng.randrange(3), rng.randrange(max(1, len(lanes))), -1
    positions = [0] * len(lanes)
    while True:
        open_lanes = [i for i, lane in enumerate(lanes) if positions[i] < len(lane.instructions)]
        if not open_lanes:
            return
        ready = [i for i in open_lanes if _can_go(lanes[i], positions[i])]
        if not ready:
            raise InternalError("[cpu] every stream waits: the plan has a cycle of events")
        last = _pick(ready, last, victim, policy, rng)
        _one(lanes[last], positions[last], execution)
        positions[last] += 1


def _one(lane: Lane, position: int, execution: Execution) -> None:
    if lane.skips(execution, position):
        return
    try:
        lane.instructions[position]()
    except BaseException as error:
        lane.note(execution, position, error)
