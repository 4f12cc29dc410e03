"""How long steps take, roughly: what the allocator and the simulator believe about a device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from asyncnet_gpu.graph import Graph, Node
from asyncnet_gpu.ops.base import Cost


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """Rates and fixed costs of one kind of device. All times in seconds.

    Attributes
    ----------
    flops_per_s, bytes_per_s
        Sustained rates of one stream.
    launch_s
        Host time to issue one step.
    fixed_s
        Shortest time that a step takes on the device.
    handoff_s
        Extra delay when a step waits for an event of another stream. Large on the CPU, where it is
        a thread switch; small on CUDA.
    copy_bytes_per_s
        Rate between devices.
    lanes
        Streams that can really run at a time (cores); more only queue up.
    threads
        Whether streams are threads of this process: steps that hold Python's lock (`Cost.gil`)
        then exclude one another.
    shortest_unlocked_s
        With `threads`: a step in Python that takes less lets nobody else have Python's lock, as a
        waiting thread needs longer to wake up.
    interprets
        With `threads`: whether all steps are carried out from Python, not only those whose operator
        says so (`Cost.interpreted`).
    replay_launch_s
        Host time of one step in a replay of a recorded graph; None where nothing is recorded.
    """

    flops_per_s: float
    bytes_per_s: float
    launch_s: float
    fixed_s: float
    handoff_s: float
    copy_bytes_per_s: float
    lanes: int
    threads: bool = False
    shortest_unlocked_s: float = 0.0
    interprets: bool = True
    replay_launch_s: float | None = None

    def seconds(self, cost: Cost) -> float:
        """Time of one step on an idle device: the slower of arithmetic and memory."""
        return self.fixed_s + max(cost.flops / self.flops_per_s, cost.bytes / self.bytes_per_s)

    def locks(self, cost: Cost, seconds: float | None = None) -> bool:
        """Whether no other thread gets anything done while a step runs: modelled, or `seconds`.

        An operator may hold Python's lock all the time. One that lets go of it for less time than
        a waiting thread takes to wake up has it back before the other one runs.
        """
        if not self.threads or cost.gil:
            return self.threads
        took_s = self.seconds(cost) if seconds is None else seconds
        return (self.interprets or cost.interpreted) and took_s < self.shortest_unlocked_s

    def for_mode(self, mode: str) -> DeviceModel:
        """Return the rates of a mode: a recorded graph costs the host less per step."""
        if self.replay_launch_s is None or not mode.startswith("graph"):
            return self
        return replace(self, launch_s=self.replay_launch_s)


def node_cost(graph: Graph, node: Node) -> Cost:
    """Work of a node from its operator's own estimate."""
    return node.op.cost(graph.read_specs(node), graph.write_specs(node), node.attrs)
