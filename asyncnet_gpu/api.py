"""The map of the code base: `compile` calls every box of the design once, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from asyncnet_gpu import backends
from asyncnet_gpu.auto import Chooser
from asyncnet_gpu.backends.base import AbstractBackend, ProgramOptions
from asyncnet_gpu.backends.sim import simulate
from asyncnet_gpu.engine import Engine
from asyncnet_gpu.errors import PlanError, message
from asyncnet_gpu.executor import Executable
from asyncnet_gpu.graph import Graph, build_graph
from asyncnet_gpu.limits import longest_run_s
from asyncnet_gpu.passes import run_passes
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import CONCURRENT, MODES, Plan
from asyncnet_gpu.profiling import RUNS, Remade
from asyncnet_gpu.verify import verify

if TYPE_CHECKING:
    from asyncnet_gpu.net import AsyncNet


def compile(  # noqa: A001 - the word every user of such a library looks for
    net: AsyncNet, *, backend: str = "auto", mode: str = "auto", max_streams: int | None = None,
    allocator: str = "cost", slots: int = 1, queue: int = 64,
    on_full: Literal["block", "raise"] = "block", timeout_s: float = 600.0,
    blas_threads: int | None = None, devices: Sequence[int] | None = None,
    adversary_seed: int | None = None, measured: Mapping[str, float] | None = None,
) -> Executable:  # fmt: skip
    """Resolve, plan, prove and load a net.

    Parameters
    ----------
    net
        The definition; later changes to it do not matter.
    backend
        "cpu", "cuda", "sim", or "auto": CUDA when a device answers, else the CPU
        (``exe.backend`` says which).
    mode
        "serial" (one stream, the oracle), "streams", "graph" (recorded once per slot and
        replayed), "graph-serial", or "auto": measures on the first runs those that apply and keeps
        the fastest (``exe.why`` says why).
    max_streams
        Compute streams per device. None: 8 for the "cost" allocator, unlimited for "exact".
    allocator
        "cost": near-linear time, weighs what a hand-over between streams costs. "exact": every two
        independent nodes on different streams with the fewest waits that allow it.
    slots
        Runs in flight, each with its own buffers. A net that updates parameters has one.
    queue, on_full
        Runs that may wait for a slot; then ``submit`` blocks, or raises `QueueFull`.
    timeout_s
        Longest that a run and every wait inside it may take, in seconds.
    blas_threads
        CPU only: threads of the BLAS library during runs. None: 1 when the net has steps that can
        overlap (in every mode, so that all modes give the same bits), else the library's own.
    devices
        Physical device of each logical one; None is 0, 1, 2 ...
    adversary_seed
        CPU only, for tests: carry the plan out in a hostile order that its waits allow.
    measured
        Seconds of nodes by name, from ``exe.report(...).node_seconds``: streams are chosen by them
        instead of by the operators' own estimates. They never change a result.

    Raises
    ------
    NetError
        If the net is not complete.
    PlanError
        If an option is wrong or the net names a device that does not answer.
    VerificationError
        If the proof of the plan fails; a bug of this library, never run.
    DeviceError
        If the backend is missing or has no memory for the first slot.
    """
    built = build_graph(net)
    loaded = backends.load(backend)
    graph = place(run_passes(built, loaded.name))
    make_plans = partial(_plans, graph, loaded, mode, allocator, max_streams)
    plans = make_plans(measured)
    n_blas = _blas_threads(plans, blas_threads)
    timeout_s = longest_run_s(timeout_s)
    options = ProgramOptions(timeout_s, n_blas, adversary_seed, _devices(graph, loaded, devices))
    check_counts(slots, queue, on_full)
    values = loaded.load_values(next(iter(plans.values())), options)
    load = partial(
        Engine, backend=loaded, values=values, options=options, n_slots=slots, queue=queue,
        on_full=on_full,
    )  # fmt: skip
    engines: dict[str, Engine] = {}
    try:
        for name, plan in plans.items():
            engines[name] = load(plan)
    except BaseException:
        for engine in engines.values():
            engine.close()
        loaded.close()  # a slot that does not fit must not leave the parameters behind
        raise
    profiled = mode == "auto" and measured is None and loaded.name != "sim" and _can_overlap(graph)

    def remake(seconds: Mapping[str, float]) -> dict[str, Remade]:
        made = make_plans(seconds)
        return {
            name: Remade(made[name], partial(load, made[name]))
            for name in CONCURRENT
            if name in made
        }

    chooser = _chooser(plans, mode, loaded.model(), timeout_s, RUNS if profiled else 0)
    return Executable(loaded, engines, values, chooser, remake)


def _plans(
    graph: Graph, backend: AbstractBackend, mode: str, allocator: str, max_streams: int | None,
    measured: Mapping[str, float] | None,
) -> dict[str, Plan]:  # fmt: skip
    """Make and prove a plan for each mode that applies, simplest first."""
    if mode == "auto":
        modes = MODES[: 4 if backend.captures else 2]
    elif mode in MODES:
        modes = (mode,)
    else:
        raise PlanError(
            message("compile", f"mode={mode!r}", expected=" | ".join(("auto", *MODES)),
                    got=repr(mode), remedy="Choose one of them.")
        )  # fmt: skip
    plans = {}
    for name in modes:
        plan = make_plan(
            graph, device_kind=backend.name, model=backend.model(), mode=name,
            allocator=allocator, max_streams=max_streams, alignment=backend.alignment(),
            measured=measured,
        )  # fmt: skip
        verify(plan)
        plans[name] = plan
    if mode == "auto":
        for concurrent, simple in (("streams", "serial"), ("graph", "graph-serial")):
            if concurrent in plans and len(plans[concurrent].streams) == len(plans[simple].streams):
                del plans[concurrent]  # nothing to overlap: the same plan twice
    return plans


def _chooser(
    plans: dict[str, Plan], mode: str, model: DeviceModel, timeout_s: float, to_profile: int
) -> Chooser:
    """Decide the mode where it is clear; otherwise start with what the simulator believes in."""
    if mode != "auto":
        return Chooser([mode], "asked for")
    if len(plans) == 1 and not to_profile:
        return Chooser(list(plans), "no two steps are worth overlapping: one stream")
    predicted = {name: simulate(plan, model).makespan_s for name, plan in plans.items()}
    first = min(predicted, key=predicted.__getitem__)
    times = ", ".join(f"{name} {1e3 * s:.3f} ms" for name, s in predicted.items())
    storages = next(iter(plans.values())).graph.storages
    return Chooser(
        list(plans), f"predicted: {times}", first=first, timeout_s=timeout_s,
        exclusive=any(storage.kind == "state" for storage in storages), to_profile=to_profile,
    )  # fmt: skip


def _blas_threads(plans: dict[str, Plan], asked: int | None) -> int | None:
    if asked is not None:
        return asked
    graph = next(iter(plans.values())).graph
    return 1 if _can_overlap(graph) else None


def _can_overlap(graph: Graph) -> bool:
    """Whether any two nodes are independent: a property of the net, not of a mode."""
    from asyncnet_gpu.plan.deps import has_parallelism

    return has_parallelism(graph)


def _devices(
    graph: Graph, backend: AbstractBackend, asked: Sequence[int] | None
) -> tuple[int, ...] | None:
    needed = 1 + max([0, *(s.device for s in graph.storages), *(n.device for n in graph.nodes)])
    there = backend.n_devices()
    devices = None if asked is None else tuple(asked)
    if devices is not None and len(devices) < needed:
        raise PlanError(
            message("compile", f"devices={devices}", expected=f"{needed} entries",
                    got=len(devices), remedy="Name a device for each one the net uses.")
        )  # fmt: skip
    highest = needed if devices is None else 1 + max(devices, default=0)
    if there is not None and highest > there:
        raise PlanError(
            message(
                "compile", f"the net uses {needed} devices", expected=f"at most {there}",
                got=highest, remedy="Pass devices=[0] * n to fold them onto one device.",
            )
        )  # fmt: skip
    return devices


def check_counts(slots: int, queue: int, on_full: str) -> None:
    """Raise `PlanError` when the options that say how runs are queued are wrong."""
    if slots < 1 or queue < 0 or on_full not in ("block", "raise"):
        raise PlanError(
            message(
                "compile", "bad run options",
                expected="slots >= 1, queue >= 0, on_full block or raise",
                got=f"slots={slots}, queue={queue}, on_full={on_full!r}", remedy="Correct them.",
            )
        )  # fmt: skip


def load_onnx(source: Any, shapes: Any = None, **options: Any) -> Any:
    """Load an ONNX model as a net; see `asyncnet_gpu.onnx.load_onnx` (needs the extra "onnx")."""
    from asyncnet_gpu.onnx import load_onnx as load

    return load(source, shapes, **options)


def to_numpy(array: Any) -> np.ndarray[Any, Any]:
    """Return an array of any backend as NumPy (fetched from the device when it is on one)."""
    if isinstance(array, np.ndarray):
        return array
    if hasattr(array, "get") and hasattr(array, "__cuda_array_interface__"):
        fetched: np.ndarray[Any, Any] = array.get()
        return fetched
    return np.asarray(array)
