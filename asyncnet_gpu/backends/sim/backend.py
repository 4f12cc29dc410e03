"""The contract carried out in virtual time: right shapes, zeros for values, modelled times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import numpy as np

from asyncnet_gpu.backends.base import (
    AbstractBackend,
    AbstractProgram,
    Execution,
    HostSlice,
    ProgramOptions,
    Slice,
)
from asyncnet_gpu.backends.sim.simulate import GPU, simulate
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.specs import TensorSpec


@final
class SimBackend(AbstractBackend):
    """N devices with streams and copy engines, without arithmetic.

    Outputs of a run are zeros of the right shape and dtype; the times of its steps are in
    ``exe.trace()``, in seconds of virtual time.
    """

    name: ClassVar[str] = "sim"

    def __init__(self, rates: DeviceModel = GPU) -> None:
        self._rates = rates

    @property
    def xp(self) -> Any:
        """The numpy module; nothing is computed with it."""
        return np

    def n_devices(self) -> int | None:
        """None: as many as a net asks for."""
        return None

    def model(self) -> DeviceModel:
        """Rates of the simulated devices."""
        return self._rates

    def alignment(self) -> int:
        """As on CUDA."""
        return 256

    def adopt(self, value: object, spec: TensorSpec, device: int) -> Any:
        """Any value will do: only its name counts."""
        return value

    def to_numpy(self, array: Any) -> Any:
        """Return the array itself."""
        return array

    def load_values(self, plan: Plan, options: ProgramOptions) -> Mapping[int, Any]:
        """Keep the first values, so that parameters can be read and set."""
        graph = plan.graph
        return {graph.blobs[name].storage: np.array(v) for name, v in graph.values.items()}

    def program(
        self, plan: Plan, values: Mapping[int, Any], options: ProgramOptions
    ) -> AbstractProgram:
        """Simulate the plan once; every run is the same."""
        return _SimProgram(plan, self._rates)

    def read_value(self, buffer: Any, spec: TensorSpec) -> Any:
        """Return a copy of the value last set."""
        return np.array(buffer)

    def write_value(self, buffer: Any, array: Any) -> None:
        """Replace a value."""
        buffer[...] = array

    def close(self) -> None:
        """Nothing is held."""


@final
class _SimProgram(AbstractProgram):
    def __init__(self, plan: Plan, rates: DeviceModel) -> None:
        self._plan = plan
        simulation = simulate(plan, rates)
        spans = zip(simulation.starts_s, simulation.ends_s, strict=True)
        self._slices = [Slice(i, start, end) for i, (start, end) in enumerate(spans)]
        launch_s = rates.launch_s
        self._host = [
            HostSlice("host", "issue", i, i * launch_s, (i + 1) * launch_s)
            for i in range(len(plan.steps))
        ]
        self._barriers = {n.id for n in plan.graph.nodes if n.op.name in BARRIERS}

    def execute(self, execution: Execution, timeout_s: float | None) -> bool:
        graph = self._plan.graph
        execution.passed |= self._barriers
        if execution.slices is not None:
            execution.slices.extend(self._slices)
            execution.host.extend(self._host)
        if not execution.cancelled:
            specs = {key: graph.blobs[name].spec for key, name in graph.outputs.items()}
            execution.outputs = {key: np.zeros(s.shape, s.dtype) for key, s in specs.items()}
        return True

    def start(self, execution: Execution, on_done: Callable[[], None]) -> None:
        self.execute(execution, None)
        on_done()

    def barrier_reached(self, execution: Execution, node: int) -> bool:
        return node in execution.passed

    def stuck_at(self, execution: Execution) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass
