"""The contract of a backend: what it owes to carry a `Plan` out. No operator is named here.

A backend gives memory and arrays, and binds a plan to one slot's memory as a *program*. The
program holds everything that is decided before the first run: launches with packed arguments,
streams, events, a captured graph. A run then only sets inputs, issues and collects.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, final

from asyncnet_gpu.errors import AsyncNetError, DeviceError, message
from asyncnet_gpu.graph import Node
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.specs import TensorSpec


@dataclass(frozen=True, slots=True)
class ProgramOptions:
    """What a user chose for an executable and a program must know.

    Attributes
    ----------
    timeout_s
        Longest that any wait inside the program may take.
    blas_threads
        Threads of the BLAS library while a run is under way on the CPU; None leaves them alone.
    adversary_seed
        Seed of a hostile but legal order of steps, for tests; None runs as planned.
    devices
        Physical device of each logical device; None is the identity.
    """

    timeout_s: float = 600.0
    blas_threads: int | None = None
    adversary_seed: int | None = None
    devices: tuple[int, ...] | None = None


def cannot_bind(node: Node, error: Exception) -> AsyncNetError:
    """Return the error of a node whose operator took the shapes and then could not be bound."""
    if isinstance(error, AsyncNetError):
        return error
    return DeviceError(
        message(
            "bind", f"{node.op.kind} {node.name!r} cannot be bound to its arrays",
            expected="attributes that its operator can carry out",
            got=f"{type(error).__name__}: {error}",
            remedy=f"Check the attributes of the node added at {node.line}.",
        )
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StepError:
    """What went wrong in a step, and when, so that the first error in time can win."""

    step: int
    error: BaseException
    at_s: float


@dataclass(frozen=True, slots=True)
class Slice:
    """One step as it really ran: seconds on the clock of the run (start of the run is 0)."""

    step: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class HostSlice:
    """What a thread of the host did for one step: seconds on the clock of the run.

    Attributes
    ----------
    thread
        Name of the thread.
    what
        "run" (the step itself, on the CPU), "issue" (its launches and events handed to a device)
        or "wait" (blocked until the event of another stream).
    step
        Index in the plan.
    start_s, end_s
        When.
    cpu_s
        How long of that the thread was on a core; None where that was not measured.
    """

    thread: str
    what: str
    step: int
    start_s: float
    end_s: float
    cpu_s: float | None = None


class Ranges(Protocol):
    """Marks steps for a profiler while the host runs or issues them (NVTX ranges)."""

    def begin(self, step: int) -> None:
        """Open the range of a step in the calling thread."""

    def end(self) -> None:
        """Close the range opened last in the calling thread."""


@final
@dataclass(slots=True)
class Execution:
    """One execution of a program: filled in by the program, read by the run.

    Attributes
    ----------
    inputs
        Blob name to array of the backend's kind, already checked against the plan.
    outputs
        Output key to a fresh array that the caller may keep; set when the execution succeeded.
    errors
        Every step that failed.
    cancelled
        Set by the caller; the program then starts no further step.
    passed
        Node ids of the barriers passed so far.
    slices
        A list when the execution is traced; None costs nothing.
    host
        What the host did; filled in together with `slices`.
    unread
        Fills in more of both: called once somebody wants to see them, not while runs go on.
    ranges
        Ranges for a profiler, when asked for; heeded by traced executions only.
    cpu_times
        Whether a traced execution also notes how long its threads were on a core.
    """

    inputs: Mapping[str, Any]
    outputs: dict[str, Any] = field(default_factory=dict)
    errors: list[StepError] = field(default_factory=list)
    cancelled: bool = False
    passed: set[int] = field(default_factory=set)
    slices: list[Slice] | None = None
    host: list[HostSlice] = field(default_factory=list)
    unread: list[Callable[[], None]] = field(default_factory=list)
    ranges: Ranges | None = None
    cpu_times: bool = False
    started_s: float = field(default_factory=time.perf_counter)

    def read(self) -> list[Slice]:
        """Return all slices; of an execution that was not traced none."""
        while self.unread:
            self.unread.pop(0)()
        return self.slices or []

    def fail(self, step: int, error: BaseException) -> None:
        """Note that a step failed now; step -1 means outside any step."""
        self.errors.append(StepError(step, error, time.perf_counter()))


def dependents(plan: Plan, step: int) -> frozenset[int]:
    """Return the steps that must not run once `step` has failed: whoever needs what it made.

    Failure spreads along what nodes read and along control edges, in program order; O(nodes). Not
    along stream order or reused bytes, which order steps without making one need the other.
    """
    graph = plan.graph
    storage_of = {name: blob.storage for name, blob in graph.blobs.items()}
    failed = plan.steps[step].node
    lost_nodes = {failed}
    lost = {storage_of[name] for name in graph.nodes[failed].writes}
    for node in graph.nodes[failed + 1 :]:
        if any(storage_of[n] in lost for n in node.reads) or not lost_nodes.isdisjoint(node.after):
            lost_nodes.add(node.id)
            lost.update(storage_of[name] for name in node.writes)
    lost_nodes.discard(failed)
    return frozenset(i for i, s in enumerate(plan.steps) if s.node in lost_nodes)


class AbstractProgram(ABC):
    """A plan bound to the memory of one slot. At most one execution is under way at a time."""

    @abstractmethod
    def execute(self, execution: Execution, timeout_s: float | None) -> bool:
        """Carry the plan out and wait. With `timeout_s` None the caller's thread may do the work.

        Errors of steps go into `execution`. Every event is signalled even after an error; steps
        that depend on a failed one do not run. Returns False if `timeout_s` passed first: the
        program must then be thrown away with `abandon`.
        """

    @abstractmethod
    def start(self, execution: Execution, on_done: Callable[[], None]) -> None:
        """Issue the plan and return at once; `on_done` is called from another thread at the end."""

    def cancel(self, execution: Execution) -> None:
        """Start no further step; those under way finish. The execution then ends as usual."""
        execution.cancelled = True

    @abstractmethod
    def barrier_reached(self, execution: Execution, node: int) -> bool:
        """Whether the current execution has passed a barrier; never blocks."""

    @abstractmethod
    def stuck_at(self, execution: Execution) -> tuple[int, ...]:
        """Steps that were started and have not finished, for the error after a time-out."""

    @abstractmethod
    def close(self) -> None:
        """Free everything. The program is idle."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go of a program whose execution never ended: never blocks, may leak."""


class AbstractBackend(ABC):
    """One kind of device. Found by folder name; see `asyncnet_gpu.backends.load`."""

    name: ClassVar[str]
    #: Whether the graph modes differ from the others in speed (work is recorded and replayed).
    captures: ClassVar[bool] = False
    #: Whether values loaded by a process can be used in those that it forks.
    survives_fork: ClassVar[bool] = True

    @property
    @abstractmethod
    def xp(self) -> Any:
        """Array namespace: numpy or cupy."""

    @abstractmethod
    def n_devices(self) -> int | None:
        """Number of devices that answer; None when there are as many as a net asks for."""

    @abstractmethod
    def model(self) -> DeviceModel:
        """Rates for the cost-aware allocator and the simulator."""

    @abstractmethod
    def alignment(self) -> int:
        """Alignment of blobs in an arena, in bytes."""

    @abstractmethod
    def adopt(self, value: object, spec: TensorSpec, device: int) -> Any:
        """Return `value` as an array of this backend, without a copy where that is possible.

        Ordered after what its producer has enqueued. Shape and dtype must be those of `spec`
        (Python numbers and lists are converted); else `ShapeError`.
        """

    @abstractmethod
    def to_numpy(self, array: Any) -> Any:
        """Return an array of this backend as NumPy, after what is still writing it."""

    @abstractmethod
    def load_values(self, plan: Plan, options: ProgramOptions) -> Mapping[int, Any]:
        """Allocate and fill the persistent storages (parameters, states, constants) of a plan.

        Returns storage id to buffer; shared by all slots.
        """

    @abstractmethod
    def program(
        self, plan: Plan, values: Mapping[int, Any], options: ProgramOptions
    ) -> AbstractProgram:
        """Bind the plan to a new slot: arenas, streams, events, launches.

        Raises
        ------
        OutOfDeviceMemoryError
            With what was asked and what is free; nothing is left allocated.
        DeviceError
            If a stream or event cannot be made; nothing is left allocated.
        """

    @abstractmethod
    def read_value(self, buffer: Any, spec: TensorSpec) -> Any:
        """Return a persistent storage (see `load_values`) as a fresh NumPy array."""

    @abstractmethod
    def write_value(self, buffer: Any, array: Any) -> None:
        """Overwrite a persistent storage with a NumPy array; no run is in flight."""

    @abstractmethod
    def close(self) -> None:
        """Free what `load_values` allocated and everything else the backend holds."""
