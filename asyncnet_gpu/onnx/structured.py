"""Models whose inputs or outputs are more than plain tensors: sequences, optionals, texts, codes.

Every layout of the inputs (`ports`) is a net of its own, behind an `OnnxExecutable` of its own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

from onnx import ModelProto

from asyncnet_gpu.api import check_counts, to_numpy
from asyncnet_gpu.engine import closed_error
from asyncnet_gpu.errors import NetError, message
from asyncnet_gpu.forking import now_and_after_fork
from asyncnet_gpu.onnx.dynamic import DEFAULT_PLANS, OnnxNet
from asyncnet_gpu.onnx.executable import OnnxExecutable
from asyncnet_gpu.onnx.external import ExternalData
from asyncnet_gpu.onnx.host_runs import HostRuns, Options, Progress
from asyncnet_gpu.onnx.limits import Limits
from asyncnet_gpu.onnx.many_plans import ManyPlans, no_plan_yet
from asyncnet_gpu.onnx.model import model_inputs
from asyncnet_gpu.onnx.ports import Layout, collect, flatten

if TYPE_CHECKING:
    from asyncnet_gpu.executor import Executable
    from asyncnet_gpu.run import Run

#: Layouts of the inputs that an executable keeps plans for.
MAX_LAYOUTS = 8


@final
class StructuredNet:
    """A model that takes or gives sequences, optionals, strings or narrow numbers.

    Attributes
    ----------
    name
        Of the graph.
    inputs, outputs
        Names.
    """

    def __init__(self, model: ModelProto, external: ExternalData, limits: Limits) -> None:
        self.name: str = model.graph.name
        self._model = model
        self._external = external
        self._limits = limits
        self.types = {entry.name: entry.type for entry in model_inputs(model)}
        self.result_types = {entry.name: entry.type for entry in model.graph.output}
        self.inputs = tuple(self.types)
        self.outputs = tuple(self.result_types)

    def of_layout(self, layout: Mapping[str, Layout]) -> OnnxNet:
        """Return the net for inputs of some layout."""
        return OnnxNet(self._model, self._external, {}, {}, self._limits, layout)

    def compile(self, **options: Any) -> StructuredExecutable:
        """Return an executable that plans for the first run of each layout and signature.

        Parameters
        ----------
        options
            As for `asyncnet_gpu.compile`, and ``max_plans`` of `OnnxNet.compile`.
        """
        return StructuredExecutable(self, options)

    def __repr__(self) -> str:
        return f"<StructuredNet {self.name!r}: {len(self.inputs)} inputs>"


class _Made:
    """An executable and the runs that use it."""

    __slots__ = ("exe", "users")

    def __init__(self, exe: OnnxExecutable) -> None:
        self.exe = exe
        self.users = 0


@final
class StructuredExecutable(ManyPlans):
    """Executables of one model by layout. Safe to use from several threads.

    Use it as a context manager, or call `close`. It has the methods of `asyncnet_gpu.Executable`;
    what concerns a plan concerns the one used last, or the one for the inputs given.
    """

    def __init__(self, net: StructuredNet, options: Mapping[str, Any]) -> None:
        self._net = net
        self._options = {"max_plans": DEFAULT_PLANS, **options}
        self._made: OrderedDict[tuple[Any, ...], _Made] = OrderedDict()
        now_and_after_fork(self, StructuredExecutable._make_lock)
        self._closed = False
        runs_as = Options.of(options)
        check_counts(runs_as.slots, runs_as.queue, runs_as.on_full)
        self._host_runs = HostRuns(net.name, self._carry_out, runs_as)

    def _make_lock(self) -> None:
        self._lock = threading.Lock()

    def run(
        self, inputs: Mapping[str, object] | None = None, /, *, timeout_s: float | None = None,
        **named: object,
    ) -> dict[str, Any]:  # fmt: skip
        """Execute the model and wait.

        Parameters
        ----------
        inputs, named
            A list for a sequence, None for an optional value that is not there, an array of texts
            for strings, of an `ml_dtypes` type for narrow numbers; else an array.
        timeout_s
            Time to wait.

        Returns
        -------
        The same kinds of values by the names of the outputs.

        Raises
        ------
        NetError
            If the inputs do not fit.
        """
        layout, tensors = self._flat(inputs, named)
        with self._use(layout) as exe:
            return self._collect(exe.run(tensors, timeout_s=timeout_s))

    def submit(
        self, inputs: Mapping[str, object] | None = None, /, *, deadline_s: float | None = None,
        **named: object,
    ) -> Run:  # fmt: skip
        """Start the model and return at once with a `Run`; as `asyncnet_gpu.Executable.submit`.

        A thread puts the results together; new plans are made there.
        """
        layout, tensors = self._flat(inputs, named)
        return self._host_runs.submit({"layout": layout, "tensors": tensors}, deadline_s)

    def _carry_out(self, given: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        with self._use(given["layout"]) as exe:
            progress.enter("the plan of its layout")
            return self._collect(exe.carry_out(given["tensors"], None, progress))

    def _flat(
        self, inputs: Mapping[str, object] | None, named: Mapping[str, object]
    ) -> tuple[dict[str, Layout], dict[str, Any]]:
        """Return the layout of what a caller gives, and the tensors that it consists of."""
        given = dict(named) if inputs is None else {**inputs, **named}
        types = self._net.types
        if given.keys() - types.keys() or any(
            n not in given and t.WhichOneof("value") != "optional_type" for n, t in types.items()
        ):
            raise NetError(
                message("run", "inputs do not fit", expected=", ".join(types) or "none",
                        got=", ".join(given) or "none",
                        remedy="Give a value for every input by its name.")
            )  # fmt: skip
        tensors: dict[str, Any] = {}
        return {n: flatten(n, t, given.get(n), tensors) for n, t in types.items()}, tensors

    def _collect(self, found: Mapping[str, Any]) -> dict[str, Any]:
        results = self._net.result_types
        return {n: collect(n, t, found, to_numpy) for n, t in results.items()}

    # -- which plan ----------------------------------------------------------------------------

    def _last(self) -> Executable:
        with self._lock:
            self._check_open()
            if not self._made:
                raise no_plan_yet()
            made = next(reversed(self._made.values()))
        return made.exe._last()

    @contextmanager
    def _chosen(
        self, inputs: Mapping[str, object] | None, named: Mapping[str, object]
    ) -> Iterator[tuple[Executable, dict[str, Any]]]:
        tensors: dict[str, Any] | None = None
        if inputs is None and not named:
            self._last()  # says so when there is none
            with self._lock:
                layout = dict(next(reversed(self._made)))
        else:
            layout, tensors = self._flat(inputs, named)
        with self._use(layout) as exe, exe._chosen(tensors, {}) as found:
            yield found

    @contextmanager
    def _use(self, layout: dict[str, Layout]) -> Iterator[OnnxExecutable]:
        """Hold the executable of a layout; nobody closes it meanwhile."""
        key = tuple(layout.items())
        with self._lock:
            self._check_open()
            made = self._made.get(key)
            if made is None:
                made = self._made[key] = _Made(self._net.of_layout(layout).compile(**self._options))
            self._made.move_to_end(key)
            made.users += 1
        try:
            yield made.exe
        finally:
            self._release(made)

    def _release(self, made: _Made) -> None:
        with self._lock:
            made.users -= 1
            idle = [key for key, m in self._made.items() if not m.users]
            closed = [self._made.pop(k) for k in idle[: max(0, len(self._made) - MAX_LAYOUTS)]]
        for old in closed:
            old.exe.close()

    @property
    def n_layouts(self) -> int:
        """Layouts whose plans are kept."""
        return len(self._made)

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error()

    def close(self) -> None:
        """Cancel what is queued, wait for what runs, free every plan."""
        with self._lock:
            self._closed = True
        self._host_runs.close()
        with self._lock:
            made = list(self._made.values())
            self._made.clear()
        for old in made:
            old.exe.close()
