"""`Executable`: what ``net.compile`` returns; takes arrays, gives arrays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

from asyncnet_gpu.auto import Chooser
from asyncnet_gpu.backends.base import AbstractBackend, Execution, Ranges
from asyncnet_gpu.engine import Engine, ExecutableClosed
from asyncnet_gpu.errors import (
    AsyncNetError,
    DeadlineExceeded,
    NetError,
    RunCancelled,
    ShapeError,
    message,
)
from asyncnet_gpu.limits import limit_s
from asyncnet_gpu.place import replica_names
from asyncnet_gpu.plan.types import CONCURRENT, MODES, Plan
from asyncnet_gpu.profiling import Profile, Remade, Remake, same_schedule
from asyncnet_gpu.timeline import Timeline

if TYPE_CHECKING:
    from asyncnet_gpu.report import Report
    from asyncnet_gpu.run import Run


@dataclass(frozen=True, slots=True, eq=False)
class _Trace:
    """What one caller of `Executable.trace` asked for."""

    timeline: Timeline
    ranges: Ranges | None
    cpu_times: bool
    thread: int


@final
class Executable:
    """A net, planned, proven and loaded. Safe to use from several threads.

    Use it as a context manager, or call `close`.

    Attributes
    ----------
    backend
        Name of the backend that was taken.
    """

    def __init__(
        self, backend: AbstractBackend, engines: Mapping[str, Engine], values: Mapping[int, Any],
        chooser: Chooser, remake: Remake | None = None,
    ) -> None:  # fmt: skip
        self.backend = backend.name
        self._backend = backend
        self._engines = dict(engines)
        self._values = values
        self._chooser = chooser
        self._remake = remake
        self._profile = Profile(self._engines[chooser.modes[0]].plan)
        # Guarded by the chooser's lock: engines and `_engine` too.
        self._settled = chooser.decided
        self._closed = False
        self._traces: tuple[_Trace, ...] = ()  # of `_engine`
        self._retired: list[Engine] = []  # not used any more, but perhaps by runs under way
        self._engine = self._engines[chooser.choice]
        graph = self._engine.plan.graph
        self._inputs = {
            name: (graph.blobs[name].spec, graph.storages[graph.blobs[name].storage].device)
            for name in graph.inputs
        }

    # -- reading -----------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """The plan in use; with ``mode="auto"`` the best one known so far."""
        return self._engine.plan

    @property
    def mode(self) -> str:
        """The mode in use."""
        return self._engine.plan.mode

    @property
    def why(self) -> str:
        """Why this mode: asked for, or what was predicted or measured."""
        return self._chooser.why

    @property
    def slots(self) -> int:
        """Runs that can be in flight at a time."""
        return self._engine.n_slots

    # -- running -----------------------------------------------------------------------------

    def run(
        self, inputs: Mapping[str, object] | None = None, /, *, timeout_s: float | None = None,
        **named: object,
    ) -> dict[str, Any]:  # fmt: skip
        """Execute the net and wait.

        Parameters
        ----------
        inputs, named
            An array for every input, in a mapping or by keyword. Arrays already on the right
            device are used where they are, without a copy: do not change them meanwhile.
        timeout_s
            Limit in seconds. Without one the calling thread may do the work itself.

        Returns
        -------
        Fresh arrays of the backend's kind by output name.

        Raises
        ------
        NetError, ShapeError
            If an input is missing, unknown or does not fit. Nothing has run.
        DeadlineExceeded
            If `timeout_s` passes first; the executable stays usable.
        DeviceError
            If a step failed; also an instance of the error that the operator raised.
        """
        if timeout_s is not None:
            timeout_s = limit_s("run", "timeout_s", timeout_s)
        arrays = self._adopt(inputs, named)
        if self._settled:
            return self._engine.run(Execution(arrays), timeout_s)
        try:
            return self._run_undecided(arrays, timeout_s)
        finally:
            self._settle()

    def _run_undecided(self, arrays: dict[str, Any], timeout_s: float | None) -> dict[str, Any]:
        """Run in the mode whose turn it is, and note how long it took."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        traced = self._engine.tracer is not None  # by the user: the mode in use
        if self._chooser.to_profile and not traced:
            with self._chooser.profile(timeout_s) as own:
                if own:
                    return self._run_profiled(arrays, until)
        with self._chooser.turn(_left_s(until), measures=not traced) as mode:
            mode = self.mode if traced else mode
            return self._carry_out(mode, Execution(arrays), until)[0]

    def _carry_out(
        self, mode: str, execution: Execution, until: float | None
    ) -> tuple[dict[str, Any], Plan]:
        """Return the outputs of a run in a mode, or, when it is given up, in the one in use."""
        while True:
            engine = self._engines.get(mode, self._engine)
            try:
                return engine.run(execution, _left_s(until)), engine.plan
            except (ExecutableClosed, RunCancelled):
                # Another thread may have closed this mode before the run began: it has decided, or
                # it has planned the mode anew.
                if self._closed or engine is self._engines.get(mode, self._engine):
                    raise
                execution = Execution(execution.inputs, slices=execution.slices)

    def _run_profiled(self, arrays: dict[str, Any], until: float | None) -> dict[str, Any]:
        """Run serially and note what each step took; plan the other modes by it in the end."""
        chooser, profile = self._chooser, self._profile
        # Times of this run alone: the engine's tracer is for the user, and for runs beside this.
        execution = Execution(arrays, slices=[] if profile.warm else None)
        outputs, plan = self._carry_out(chooser.modes[0], execution, until)
        if plan is profile.plan:
            profile.note(execution)
        if chooser.to_profile == 1 and self._remake is not None:
            # The run has ended, and its outputs are the caller's whatever happens now.
            try:
                remade = self._remake(profile.seconds)
            except (AsyncNetError, MemoryError) as error:
                remade = None
                left_out = f"not planned by measured times: {error}"
            with chooser.lock:
                if remade is not None:
                    self._plan_anew(remade)
                else:
                    chooser.replace(chooser.modes, f"{chooser.why}; {left_out}")
        return outputs

    def _plan_anew(self, remade: Mapping[str, Remade]) -> None:
        """Replace the concurrent modes by others; the caller has the turn and the lock."""
        chooser, engines = self._chooser, self._engines
        if self._closed or chooser.decided or self._engine.tracer is not None:
            return
        left_out: list[str] = []
        for mode in CONCURRENT:
            new, old = remade.get(mode), engines.get(mode)
            if new is None or (old is not None and same_schedule(new.plan, old.plan)):
                continue  # where only the estimates see something to overlap, the clock decides
            if old is not None:
                self._engine = engines[chooser.modes[0]]  # for those who come meanwhile
                self._retired.append(engines.pop(mode))
                self._close_idle()
            try:
                engines[mode] = new.load()
            except (AsyncNetError, MemoryError) as error:  # those that are there do as well
                left_out.append(f"; {mode} left out: {error}")
        modes = [mode for mode in MODES if mode in engines]
        chooser.replace(modes, "planned by measured times" + "".join(left_out))
        self._engine = engines[chooser.choice]

    def _settle(self) -> None:
        """Keep the engine of the mode once it is chosen; give the others up."""
        chooser = self._chooser
        # A mode that is being planned anew, and loaded, is not waited for: a later run comes by.
        if not chooser.lock.acquire(blocking=chooser.decided):
            return
        try:
            if chooser.decided and not self._closed and self._engine.tracer is None:
                self._engine = self._engines.get(chooser.choice, self._engine)
                kept = self._engine.plan.mode
                self._retired += [e for mode, e in self._engines.items() if mode != kept]
                self._engines = {kept: self._engine}
                self._settled = True
            self._close_idle()
        finally:
            chooser.lock.release()

    def _close_idle(self) -> None:
        """Close the engines given up that are idle; the caller has the lock.

        Runs under way are not waited for: their operators may wait for the caller. Each of them
        comes by when it has ended.
        """
        self._retired = [engine for engine in self._retired if not engine.close_if_idle()]

    def submit(
        self, inputs: Mapping[str, object] | None = None, /, *, deadline_s: float | None = None,
        **named: object,
    ) -> Run:  # fmt: skip
        """Start the net and return at once with a `Run`.

        Parameters
        ----------
        deadline_s
            Seconds from now within which the run must have begun; checked before the launch.

        Raises
        ------
        QueueFull
            If all slots are busy, the queue is full and ``on_full="raise"``.
        """
        arrays = self._adopt(inputs, named)
        if not self._settled:
            # Several in flight: comparing modes would measure their interference.
            self._chooser.settle("several runs in flight before enough single ones were measured")
            self._settle()
        return self._engine.submit(Execution(arrays), deadline_s)

    def _adopt(
        self, inputs: Mapping[str, object] | None, named: Mapping[str, object]
    ) -> dict[str, Any]:
        given = named if inputs is None else {**inputs, **named}
        if given.keys() != self._inputs.keys():
            raise self._wrong_names(given)
        adopt = self._backend.adopt
        try:
            return {
                name: adopt(given[name], spec, device)
                for name, (spec, device) in self._inputs.items()
            }
        except ShapeError as error:
            for name, (spec, _) in self._inputs.items():
                got = f"{getattr(given[name], 'dtype', type(given[name]).__name__)}"
                error.add_note(f"input {name!r}: {spec}, given {got}{_shape(given[name])}")
            raise

    def _wrong_names(self, given: Mapping[str, object]) -> NetError:
        missing = sorted(self._inputs.keys() - given.keys())
        unknown = sorted(given.keys() - self._inputs.keys())
        what = "; ".join(
            f"{text} {', '.join(names)}"
            for text, names in (("missing", missing), ("unknown", unknown))
            if names
        )
        return NetError(
            message(
                f"net {self.plan.graph.name!r}", f"inputs do not fit: {what}",
                expected=", ".join(self._inputs) or "none", got=", ".join(given) or "none",
                remedy="Give an array for every input by its name.",
            )
        )  # fmt: skip

    @contextmanager
    def trace(self, *, nvtx: bool = False, cpu_times: bool = False) -> Iterator[Timeline]:
        """Note when each step of the runs inside really ran.

        Parameters
        ----------
        nvtx
            Also mark each step for NVIDIA's profilers (needs the package nvtx).
        cpu_times
            On the CPU also note how much of each step its thread was on a core, which tells
            waiting for Python's lock from work. One more call of the system for each step: on a
            busy machine it is felt.

        Yields
        ------
        A `Timeline`; save it, draw it or ask it for a report afterwards. Only the mode in use is
        traced. In a graph mode a traced run is issued step by step: a replayed graph has no events
        between its steps.

        Raises
        ------
        NetError
            If `nvtx` is asked for and the package is missing.
        """
        with self._chooser.lock:  # the engine that is traced is not exchanged for another
            engine = self._engine
            timeline = Timeline(engine.plan, self._backend.model())
            ranges: Ranges | None = None
            if nvtx:
                from asyncnet_gpu.trace.nvtx import NvtxRanges

                ranges = NvtxRanges(engine.plan)
            own = _Trace(timeline, ranges, cpu_times, threading.get_ident())
            self._set_traces(engine, (*self._traces, own))
        try:
            yield timeline
        finally:
            with self._chooser.lock:
                self._set_traces(engine, tuple(t for t in self._traces if t is not own))

    def _set_traces(self, engine: Engine, traces: tuple[_Trace, ...]) -> None:
        """Have runs noted by the innermost trace of every thread; the caller has the lock."""
        self._traces = traces
        noting = {trace.thread: trace for trace in traces}.values()

        def note(slot: int, execution: Execution) -> None:
            for trace in noting:
                trace.timeline.add(slot, execution)

        engine.ranges = next((trace.ranges for trace in noting if trace.ranges is not None), None)
        engine.cpu_times = any(trace.cpu_times for trace in noting)
        engine.tracer = note if traces else None

    def report(
        self, inputs: Mapping[str, object] | None = None, /, *, rounds: int = 5, **named: object
    ) -> Report:
        """Run the net and say how much overlapped, and what limits it.

        Parameters
        ----------
        inputs, named
            As for `run`; seeded random values when there are none.
        rounds
            At least 1: traced runs, as many without tracing, and as many of a serial plan that
            show what each step takes alone (where this plan has several streams). Parameters that
            the net updates are updated by all of them.

        Returns
        -------
        A `Report`: ``print`` it, or take ``to_dict()``.

        Raises
        ------
        NetError, ShapeError, DeviceError
            As `run`.
        """
        from asyncnet_gpu.report import report_timeline
        from asyncnet_gpu.report.measure import example_inputs, measure_alone, seconds_of_runs

        if not inputs and not named:
            inputs = example_inputs(self.plan.graph)
        arrays = self._adopt(inputs, named)
        # As a run: modes are not exchanged meanwhile, and those that update a state do not overlap.
        with self._chooser.turn(measures=False):
            engine, alone, rounds = self._engine, None, max(1, rounds)
            engine.run(Execution(arrays), None)  # warm: first touches of memory, compiled kernels
            untraced_s = min(seconds_of_runs(engine, arrays, rounds))
            with self.trace(cpu_times=True) as timeline:
                for _ in range(rounds):
                    engine.run(Execution(arrays), None)
            if len(engine.plan.streams) > 1:
                alone = measure_alone(
                    engine.plan, self._backend, self._values, engine.options, arrays, rounds
                )
        return report_timeline(timeline, alone, untraced_s if self.backend != "sim" else None)

    # -- parameters ----------------------------------------------------------------------------

    def get_parameter(self, name: str) -> Any:
        """Return the value of a parameter as a fresh NumPy array, after the runs under way."""
        storage, spec = self._parameter(name)
        self._drain()
        return self._backend.read_value(self._values[storage], spec)

    def set_parameter(self, name: str, value: object) -> None:
        """Overwrite a parameter, after the runs under way and before later ones."""
        import numpy as np

        _, spec = self._parameter(name)
        array = np.asarray(value)
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise ShapeError(
                message("set_parameter", name, expected=str(spec),
                        got=f"{array.dtype}{list(array.shape)}", remedy="Convert the array.")
            )  # fmt: skip
        self._drain()
        # Devices that only read the parameter hold replicas of it.
        for replica in replica_names(self.plan.graph, name):
            self._backend.write_value(self._values[self._parameter(replica)[0]], array)

    def _drain(self) -> None:
        """Wait for the runs under way, in whichever mode."""
        for engine in [*self._engines.values(), *self._retired]:
            if not engine.drain(engine.timeout_s):
                raise DeadlineExceeded(
                    message("parameter", "runs under way do not end",
                            expected=f"within {engine.timeout_s} s", got="still under way",
                            remedy="Cancel them first.")
                )  # fmt: skip

    def _parameter(self, name: str) -> tuple[int, Any]:
        graph = self.plan.graph
        blob = graph.blobs.get(name)
        if blob is None or name not in graph.values or blob.storage not in self._values:
            known = ", ".join(n for n in graph.values if graph.blobs[n].kind != "constant")
            raise NetError(
                message("parameter", f"{name!r}", expected=f"one of {known or 'none'}",
                        got=repr(name), remedy="Name a parameter that the outputs depend on.")
            )  # fmt: skip
        return blob.storage, blob.spec

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel what is queued, wait for what runs, free everything."""
        with self._chooser.lock:  # a mode that is being planned anew is loaded first
            self._closed = self._settled = True
            engines = [*self._engines.values(), *self._retired]
        for engine in engines:
            engine.close()
        self._backend.close()

    def __enter__(self) -> Executable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        plan = self.plan
        return (
            f"<Executable of {plan.graph.name!r}: {self.backend}, {self.mode}, "
            f"{len(plan.steps)} steps on {len(plan.streams)} streams>"
        )


def _left_s(until: float | None) -> float | None:
    """Seconds until a time of the monotonic clock, None for no limit."""
    return None if until is None else max(0.0, until - time.monotonic())


def _shape(value: object) -> str:
    shape = getattr(value, "shape", None)
    return "" if shape is None else str(list(shape))
