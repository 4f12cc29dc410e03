"""`OnnxExecutable`: a model with free dimensions, by a plan for each signature or in stages."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import numpy as np

from asyncnet_gpu.api import check_counts, to_numpy
from asyncnet_gpu.engine import closed_error
from asyncnet_gpu.errors import NetError, OnnxImportError, PlanError, ShapeError, message
from asyncnet_gpu.forking import now_and_after_fork
from asyncnet_gpu.onnx.context import NeedsValue
from asyncnet_gpu.onnx.host_runs import HostRuns, Options, Progress
from asyncnet_gpu.onnx.many_plans import ManyPlans, no_plan_yet
from asyncnet_gpu.onnx.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnet_gpu.executor import Executable
    from asyncnet_gpu.onnx.dynamic import OnnxNet
    from asyncnet_gpu.plan.types import Plan
    from asyncnet_gpu.run import Run

Array = np.ndarray[Any, Any]
Signature = tuple[tuple[str, Any], ...]


class _InStages(OnnxImportError):
    """The model runs in stages: a node needs what only a run can tell."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__(text)
        self.position = position


class _Plan:
    """An executable, the inputs it takes (the others are bound in it), and the runs that use it."""

    __slots__ = ("exe", "inputs", "users")

    def __init__(self, exe: Executable, inputs: frozenset[str]) -> None:
        self.exe = exe
        self.inputs = inputs
        self.users = 1

    def arrays(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs that are left."""
        # Not what is bound by now: another thread may have bound more since this plan was made.
        return {n: a for n, a in given.items() if n in self.inputs}


def _names(plan: Plan) -> set[str]:
    """Return what `Plan.explain` knows by name."""
    graph = plan.graph
    return graph.blobs.keys() | graph.gone.keys() | {node.name for node in graph.nodes}


@final
class OnnxExecutable(ManyPlans):
    """Executables of one model by signature. Safe to use from several threads.

    Use it as a context manager, or call `close`. It has the methods of `asyncnet_gpu.Executable`;
    what concerns a plan concerns the one used last, or the one for the inputs given.
    """

    def __init__(self, net: OnnxNet, max_plans: int, options: Mapping[str, Any]) -> None:
        if max_plans < 1:
            raise NetError(
                message("compile", "max_plans", expected="at least 1", got=max_plans,
                        remedy="Keep at least the plan in use.")
            )  # fmt: skip
        self._runs_as = Options.of(options)
        check_counts(self._runs_as.slots, self._runs_as.queue, self._runs_as.on_full)
        self._net = net
        self._max_plans = max_plans
        self._options = dict(options)
        self._plans: OrderedDict[Signature, _Plan] = OrderedDict()
        self._retired: list[_Plan] = []
        now_and_after_fork(self, OnnxExecutable._make_locks)
        self._closed = False
        self._stages: Stages | None = None
        self._host_runs: HostRuns | None = None

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._making = threading.Lock()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(self._net.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self._net.outputs

    @property
    def n_plans(self) -> int:
        """Plans in the cache."""
        return len(self._plans)

    @property
    def stages(self) -> tuple[OnnxExecutable, ...]:
        """The executables that a run goes through; itself alone where one plan does it all.

        A model is cut during the first run that needs it, so there are more of them afterwards.
        """
        return (self,) if self._stages is None else self._stages.parts

    # -- running -------------------------------------------------------------------------------

    def run(
        self, inputs: Mapping[str, object] | None = None, /, *, timeout_s: float | None = None,
        **named: object,
    ) -> dict[str, Any]:  # fmt: skip
        """Execute the model and wait; as `asyncnet_gpu.Executable.run`.

        Where it runs in stages the time-out is that of each.
        """
        return self.carry_out(self._given(inputs, named), timeout_s, None)

    def carry_out(
        self, given: dict[str, Any], timeout_s: float | None, progress: Progress | None
    ) -> dict[str, Any]:
        """Execute in this thread; with `progress` in such a way that others can cancel it."""
        plan = self._held_or_cut(given)
        if plan is None:
            assert self._stages is not None
            return self._stages.run(given, timeout_s, progress)
        try:
            arrays = plan.arrays(given)
            if progress is None:
                return plan.exe.run(arrays, timeout_s=timeout_s)
            return progress.wait(lambda: plan.exe.submit(arrays))
        finally:
            self._release(plan)

    def submit(
        self, inputs: Mapping[str, object] | None = None, /, *, deadline_s: float | None = None,
        **named: object,
    ) -> Run:  # fmt: skip
        """Start the model and return at once with a `Run`; as `asyncnet_gpu.Executable.submit`.

        A new signature is planned before that. A model in stages is carried out by a thread:
        slots, queue, deadline and `Run.cancel` are as for a single plan; `Run.result` without a
        limit waits for all stages, each of which has the limit of a run.
        """
        given = self._given(inputs, named)
        plan = self._held_or_cut(given)
        if plan is None:
            assert self._host_runs is not None
            return self._host_runs.submit(given, deadline_s)
        try:
            run = plan.exe.submit(plan.arrays(given), deadline_s=deadline_s)
        except BaseException:
            self._release(plan)
            raise
        run.add_done_callback(lambda _: self._release(plan))
        return run

    def explain(self, first: str, second: str) -> str:
        """Say why `second` waits for `first` in the plans used last; see `Plan.explain`."""
        plans = [stage.plan for stage in self.stages]
        if len(plans) == 1:
            return plans[0].explain(first, second)
        known = [_names(plan) for plan in plans]
        for plan, names in zip(plans, known, strict=True):
            if {first, second} <= names:
                return plan.explain(first, second)
        places = {}
        for name in (first, second):
            places[name] = next((i for i, names in enumerate(known) if name in names), -1)
            if places[name] < 0:
                raise PlanError(
                    message("explain", f"nothing is called {name!r}",
                            expected=f"a node or a blob of one of {len(plans)} stages",
                            got=repr(name), remedy="Look at exe.stages[0].plan and the others.")
                )  # fmt: skip
        return (
            f"{first} is in stage {places[first] + 1}, {second} in stage {places[second] + 1}: a "
            "stage begins when the one before has ended."
        )

    # -- which plan ----------------------------------------------------------------------------

    def _last(self) -> Executable:
        return self._last_plan().exe

    def _last_plan(self, *, users: int = 0) -> _Plan:
        """Return the plan used last, with so many more users."""
        self._check_open()
        if self._stages is not None:
            raise self._several()
        with self._lock:
            if not self._plans:
                raise no_plan_yet()
            plan = next(reversed(self._plans.values()))
            plan.users += users
            return plan

    @contextmanager
    def _chosen(
        self, inputs: Mapping[str, object] | None, named: Mapping[str, object]
    ) -> Iterator[tuple[Executable, dict[str, Any]]]:
        last = inputs is None and not named
        given = {} if last else self._given(inputs, named)
        plan = self._last_plan(users=1) if last else self._held_or_cut(given)
        if plan is None:
            raise self._several()
        try:
            yield plan.exe, plan.arrays(given)
        finally:
            self._release(plan)

    def _several(self) -> NetError:
        return NetError(
            message(
                f"net {self._net.name!r}", "the model runs in stages: shapes depend on what a run "
                "computes", expected="one plan", got="one for each stage",
                remedy="Ask the stages after a run: exe.stages[0].plan, "
                "exe.stages[1].trace(), ...",
            )
        )  # fmt: skip

    def _cut(self, position: int) -> None:
        """Go on with the model cut in front of a node: what that needs, no caller can give."""
        with self._making:
            if self._stages is None:
                options = {"max_plans": self._max_plans, **self._options}
                stages = Stages(self._net.source(options), position)
                self._host_runs = HostRuns(
                    self._net.name, lambda given, at: stages.run(given, None, at), self._runs_as
                )
                self._stages = stages

    # -- signatures --------------------------------------------------------------------------

    def _given(
        self, inputs: Mapping[str, object] | None, named: Mapping[str, object]
    ) -> dict[str, Any]:
        given = dict(named) if inputs is None else {**inputs, **named}
        if given.keys() != self._net.inputs.keys():
            raise NetError(
                message(f"net {self._net.name!r}", "inputs do not fit",
                        expected=", ".join(self._net.inputs) or "none",
                        got=", ".join(given) or "none",
                        remedy="Give an array for every input by its name.")
            )  # fmt: skip
        return {
            name: value if hasattr(value, "shape") else np.asarray(value, self._net.inputs[name][0])
            for name, value in given.items()
        }

    def _signature(self, given: Mapping[str, Any]) -> Signature:
        parts: list[tuple[str, Any]] = []
        for name, array in given.items():
            if name in self._net.bound:
                parts.append((name, (tuple(array.shape), self._value(name, array).tobytes())))
            else:
                parts.append((name, tuple(array.shape)))
        return tuple(parts)

    def _value(self, name: str, array: Any) -> Array:
        dtype = self._net.inputs[name][0]
        if array.nbytes > self._net.limits.max_bound_bytes:
            raise OnnxImportError(
                message("onnx", f"shapes depend on the data in input {name!r}",
                        expected=f"at most {self._net.limits.max_bound_bytes} bytes",
                        got=array.nbytes, remedy="Shapes are static in a plan.")
            )  # fmt: skip
        value: Array = np.ascontiguousarray(to_numpy(array))
        if value.dtype != dtype:
            raise ShapeError(
                message("run", f"input {name!r}", expected=dtype.name, got=value.dtype.name,
                        remedy="Convert the array.")
            )  # fmt: skip
        return value.reshape(array.shape)

    # -- plans ---------------------------------------------------------------------------------

    def _held_or_cut(self, given: dict[str, Any]) -> _Plan | None:
        """Return the plan for some inputs, which nobody retires meanwhile; None in stages."""
        if self._stages is None:
            try:
                return self._held(given)
            except _InStages as cut:
                self._cut(cut.position)
        self._check_open()
        self._net.check_shapes({name: tuple(array.shape) for name, array in given.items()})
        return None

    def _release(self, plan: _Plan) -> None:
        with self._lock:
            plan.users -= 1

    def _held(self, given: dict[str, Any]) -> _Plan:
        self._check_open()
        self._cut_for_large(given)
        plan = self._find(given)
        while plan is None:
            with self._making:  # one compilation at a time: others may want the same
                self._check_open()
                plan = self._find(given) or self._make(given)
        self._close_retired()
        return plan

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error()

    def _find(self, given: dict[str, Any]) -> _Plan | None:
        signature = self._signature(given)
        with self._lock:
            plan = self._plans.get(signature)
            if plan is not None:
                self._plans.move_to_end(signature)
                plan.users += 1
            return plan

    def _make(self, given: dict[str, Any]) -> _Plan | None:
        """Compile for a signature; None when the importer asks for more of it."""
        net = self._net
        shapes = {n: tuple(a.shape) for n, a in given.items() if n not in net.bound}
        # Copies: an array of the caller must not become part of the net.
        values = {n: self._value(n, a).copy() for n, a in given.items() if n in net.bound}
        try:
            bound = net.bind(shapes, values)
        except NeedsValue as needed:
            self._cut_at(needed, given)
            net.bind_value(needed)
            return None
        inputs = frozenset(s.name for s in bound.sources if s.kind == "input")
        plan = _Plan(bound.compile(**self._options), inputs)
        signature = self._signature(given)
        with self._lock:
            self._plans[signature] = plan
            while len(self._plans) > self._max_plans:
                self._retired.append(self._plans.popitem(last=False)[1])
        return plan

    def _cut_for_large(self, given: Mapping[str, Any]) -> None:
        """Raise `_InStages` where an input that smaller runs have bound is too large for that."""
        net = self._net
        bound = {
            n for n in net.bound if n in net.texts or given[n].nbytes <= net.limits.max_bound_bytes
        }
        if bound == net.bound:
            return
        values = {n: self._value(n, given[n]) for n in bound}
        try:
            net.bind({n: tuple(a.shape) for n, a in given.items() if n not in bound}, values)
        except NeedsValue as needed:
            self._cut_at(needed, given)

    def _cut_at(self, needed: NeedsValue, given: Mapping[str, Any]) -> None:
        """Raise `_InStages` where the model is cut for what the importer asks for."""
        if self._net.runs_in_stages(needed, given):
            assert needed.position is not None
            raise _InStages(str(needed), needed.position) from needed

    def _close_retired(self) -> None:
        """Close plans that fell out of the cache and that no run uses any more."""
        with self._lock:
            idle = [p for p in self._retired if p.users == 0]
            self._retired = [p for p in self._retired if p.users]
        for plan in idle:
            plan.exe.close()

    def close(self) -> None:
        """Cancel what is queued, wait for what runs, free every plan."""
        self._closed = True
        if self._host_runs is not None:
            self._host_runs.close()
        with self._making, self._lock:  # a plan in the making is freed as well
            plans = [*self._plans.values(), *self._retired]
            self._plans.clear()
            self._retired = []
        for plan in plans:
            plan.exe.close()
        if self._stages is not None:
            self._stages.close()
