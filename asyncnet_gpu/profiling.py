"""The first serial runs of `mode="auto"`: how long each node takes, to plan the other modes by.

An estimate of the operators' can be wrong by a factor of four on a given machine, and of a user's
function nobody knows anything. The runs that are profiled are ordinary runs.

Source: Kwon et al., "Nimble: Lightweight and parallel GPU task scheduling", NeurIPS 2020, section 4
(a run before the schedule is made).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

from asyncnet_gpu.backends.base import Execution
from asyncnet_gpu.engine import Engine
from asyncnet_gpu.plan.types import Plan

#: Runs whose steps are timed; the first of all also touches memory and compiles kernels.
RUNS = 4


@final
@dataclass(slots=True)
class Profile:
    """Least seconds of every node of a serial plan, by name.

    Attributes
    ----------
    warm
        Whether there was a run: one without times has touched memory and compiled kernels.
    """

    plan: Plan
    seconds: dict[str, float] = field(default_factory=dict)
    warm: bool = False

    def note(self, execution: Execution) -> None:
        """Take the times of a run of the plan that has succeeded."""
        self.warm = True
        for part in execution.read():
            name = self.plan.node_of(self.plan.steps[part.step]).name
            took_s = max(0.0, part.end_s - part.start_s)  # clocks of devices have a grain
            self.seconds[name] = min(took_s, self.seconds.get(name, took_s))


@final
@dataclass(frozen=True, slots=True)
class Remade:
    """A mode planned by a profile, not loaded yet."""

    plan: Plan
    load: Callable[[], Engine]


#: Plans the modes with several streams by the seconds of their nodes; those with nothing to overlap
#: are left out.
Remake = Callable[[Mapping[str, float]], Mapping[str, Remade]]


def same_schedule(first: Plan, second: Plan) -> bool:
    """Whether two plans of one graph do the same."""
    return first.streams == second.streams and first.steps == second.steps
