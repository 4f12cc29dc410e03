"""What a plan would do on devices with given rates: start and end of every step.

Steps are taken in issue order. A step starts when the host has issued it, the step before it on its
stream has ended, every event it waits for has been recorded (plus the price of the hand-over), one
of the device's lanes is free, and, where streams are threads, nobody holds Python's lock if it
needs it for its whole duration. That is a model of ordering, not of a machine: two kernels that
share a device run at full rate each as long as there are lanes. O(steps x lanes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.plan.cost import DeviceModel, node_cost
from asyncnet_gpu.plan.types import Plan, Step

#: A data-centre GPU, roughly: rates of one kernel that does not fill it, launch and event costs as
#: published for CUDA from Python.
GPU = DeviceModel(
    flops_per_s=10e12,
    bytes_per_s=1.0e12,
    launch_s=1.5e-6,
    fixed_s=3e-6,
    handoff_s=1.5e-6,
    copy_bytes_per_s=50e9,
    lanes=8,
    replay_launch_s=0.0,
)


@final
@dataclass(frozen=True, slots=True)
class Simulation:
    """Result of `simulate`. All times in seconds of virtual time.

    Attributes
    ----------
    starts_s, ends_s
        For each step of the plan.
    causes
        For each step the step that it had to wait for last, or None when it was the host.
    work_s
        Sum of the durations of all steps.
    busy_s
        For each stream the sum of the durations of its steps.
    """

    plan: Plan
    starts_s: tuple[float, ...]
    ends_s: tuple[float, ...]
    causes: tuple[int | None, ...]
    work_s: float
    busy_s: tuple[float, ...]

    @property
    def makespan_s(self) -> float:
        """End of the last step."""
        return max(self.ends_s, default=0.0)

    @property
    def utilisation(self) -> tuple[float, ...]:
        """For each stream the share of the makespan in which it works, 0 to 1."""
        total = self.makespan_s or 1.0
        return tuple(busy / total for busy in self.busy_s)

    @property
    def critical_path(self) -> tuple[int, ...]:
        """Steps from the first to the last, each the one that the next had to wait for."""
        if not self.ends_s:
            return ()
        step: int | None = max(range(len(self.ends_s)), key=self.ends_s.__getitem__)
        path: list[int] = []
        while step is not None:
            path.append(step)
            step = self.causes[step]
        return tuple(reversed(path))

    @property
    def critical_names(self) -> tuple[str, ...]:
        """Names of the nodes on the critical path."""
        return tuple(self.plan.node_of(self.plan.steps[i]).name for i in self.critical_path)


def step_seconds(plan: Plan, model: DeviceModel) -> list[float]:
    """Return the duration of every step on an idle device."""
    graph = plan.graph
    seconds = []
    for step in plan.steps:
        node = graph.nodes[step.node]
        if node.op.name in BARRIERS:
            seconds.append(0.0)
        elif plan.streams[step.stream].kind == "copy":
            moved = sum(spec.nbytes for spec in graph.write_specs(node))
            seconds.append(model.fixed_s + moved / model.copy_bytes_per_s)
        else:
            seconds.append(model.seconds(node_cost(graph, node)))
    return seconds


@final
class _Machine:
    """State of the devices while steps are placed one after the other."""

    def __init__(self, plan: Plan, model: DeviceModel) -> None:
        self.plan, self.model = plan, model
        self.host_s = 0.0
        self.last: list[int | None] = [None] * len(plan.streams)
        devices = {stream.device for stream in plan.streams}
        self.lanes: Mapping[int, list[tuple[float, int | None]]] = {
            d: [(0.0, None)] * model.lanes for d in devices
        }
        self.recorded: dict[int, int] = {}
        self.ends: list[float] = []
        self.lock_holder: int | None = None

    def ready(self, step: Step) -> tuple[float, int | None]:
        """Return when a step could start and which step was the last obstacle."""
        self.host_s += self.model.launch_s
        start, cause = self.host_s, None
        before = self.last[step.stream]
        obstacles = [] if before is None else [(self.ends[before], before)]
        for event in step.waits:
            other = self.recorded[event]
            obstacles.append((self.ends[other] + self.model.handoff_s, other))
        if self.holds_lock(step) and self.lock_holder is not None:
            obstacles.append((self.ends[self.lock_holder], self.lock_holder))
        for end, other in obstacles:
            if end >= start:
                start, cause = end, other
        return start, cause

    def holds_lock(self, step: Step) -> bool:
        """Whether a step keeps Python's lock while it works, and others want it."""
        if not self.model.threads or self.plan.streams[step.stream].kind != "compute":
            return False
        node = self.plan.node_of(step)
        cost = node_cost(self.plan.graph, node)
        return node.op.name not in BARRIERS and self.model.locks(cost)

    def occupy(
        self, step: Step, index: int, start: float, seconds: float
    ) -> tuple[float, int | None]:
        """Take the lane that is free first; return when it is, and who held it."""
        stream = self.plan.streams[step.stream]
        if stream.kind != "compute" or seconds == 0.0:
            return 0.0, None  # copy engines are beside the lanes
        lanes = self.lanes[stream.device]
        chosen = min(range(len(lanes)), key=lambda i: (lanes[i][0], i))
        free, holder = lanes[chosen]
        lanes[chosen] = (max(start, free) + seconds, index)
        return free, holder


def simulate(plan: Plan, model: DeviceModel = GPU) -> Simulation:
    """Play a plan in virtual time.

    Parameters
    ----------
    plan
        Any plan; its device kind does not matter.
    model
        Rates and prices of each of its devices.

    Returns
    -------
    When each step starts and ends, and why not earlier.
    """
    model = model.for_mode(plan.mode)
    machine = _Machine(plan, model)
    durations = step_seconds(plan, model)
    starts: list[float] = []
    causes: list[int | None] = []
    busy = [0.0] * len(plan.streams)
    for index, step in enumerate(plan.steps):
        start, cause = machine.ready(step)
        free, holder = machine.occupy(step, index, start, durations[index])
        if free > start:
            start, cause = free, holder
        starts.append(start)
        causes.append(cause)
        machine.ends.append(start + durations[index])
        machine.last[step.stream] = index
        if machine.holds_lock(step):
            machine.lock_holder = index
        busy[step.stream] += durations[index]
        if step.records is not None:
            machine.recorded[step.records] = index
    return Simulation(
        plan, tuple(starts), tuple(machine.ends), tuple(causes), sum(durations), tuple(busy)
    )
