"""Models whose shapes are not all known: one plan per signature, in a bounded cache.

A signature is the shape of every free input, and the value of every input on which shapes depend
(the shape given to a Reshape, the rate that chooses a branch). Which inputs those are is found out
by the importer: it asks for a value where it needs one.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

import numpy as np
from onnx import ModelProto, TensorProto

from asyncnet_gpu.api import to_numpy
from asyncnet_gpu.errors import AsyncNetError, NetError, OnnxImportError, ShapeError, message
from asyncnet_gpu.onnx.context import NeedsValue
from asyncnet_gpu.onnx.external import ExternalData
from asyncnet_gpu.onnx.limits import Limits
from asyncnet_gpu.onnx.model import import_model, model_leaves
from asyncnet_gpu.onnx.narrow import NARROW
from asyncnet_gpu.onnx.ports import Layout
from asyncnet_gpu.onnx.stages import Source, Stages, is_divisible
from asyncnet_gpu.onnx.tensors import element_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnet_gpu.executor import Executable
    from asyncnet_gpu.net import AsyncNet
    from asyncnet_gpu.run import Run

Array = np.ndarray[Any, Any]
Extents = tuple["int | str | None", ...]
Signature = tuple[tuple[str, Any], ...]

#: Plans that an executable keeps unless told otherwise.
DEFAULT_PLANS = 8


@final
class OnnxNet:
    """A model with free dimensions: compiles like an `AsyncNet`, binds when it runs.

    Attributes
    ----------
    name
        Of the graph.
    inputs
        Name of each input to its dtype and extents; an extent that is no integer is free, and
        extents of None mean that even their number is.
    outputs
        Names of the outputs.
    """

    def __init__(
        self, model: ModelProto, external: ExternalData, shapes: Mapping[str, Sequence[int]],
        values: Mapping[str, Array], limits: Limits, layout: Mapping[str, Layout] | None = None,
    ) -> None:  # fmt: skip
        self._model = model
        self._layout = dict(layout or {})
        self._external = external
        self._limits = limits
        self._values = dict(values)
        self.name: str = model.graph.name
        parts = [leaf for leaf in model_leaves(model, self._layout) if leaf.name not in values]
        self.inputs = {leaf.name: describe_input(leaf, shapes.get(leaf.name)) for leaf in parts}
        self.outputs = tuple(entry.name for entry in model.graph.output)
        #: Inputs whose value is part of the signature; grows as the importer asks.
        self.bound: set[str] = {leaf.name for leaf in parts if leaf.is_text}
        #: Inputs of strings, which are bound as what `ports.text_bytes` makes of them.
        self.texts = frozenset(self.bound)

    @property
    def is_static(self) -> bool:
        """Whether every extent is known."""
        return all(
            extents is not None and all(isinstance(e, int) for e in extents)
            for _, extents in self.inputs.values()
        )

    def bind(
        self, shapes: Mapping[str, Sequence[int]], values: Mapping[str, Array] | None = None
    ) -> AsyncNet:
        """Return the net for given shapes.

        Parameters
        ----------
        shapes
            Of every input, but those in `values`.
        values
            Inputs that become constants of the net.

        Raises
        ------
        OnnxImportError
            If the model does not take these shapes. Of kind `NeedsValue` when shapes depend on
            values that are not given.
        """
        for name, shape in shapes.items():
            check_extents(name, self.inputs[name][1], tuple(shape))
        return import_model(
            self._model, self._external, shapes, {**self._values, **(values or {})}, self._limits,
            self._layout,
        )  # fmt: skip

    def bind_value(self, needed: NeedsValue) -> None:
        """Make the inputs that the importer asked for part of the signature."""
        new = needed.inputs - self.bound
        if not new:
            raise needed
        self.bound |= new

    def static_net(self) -> AsyncNet:
        """Return the net of a model without free dimensions."""
        return self.bind({n: _ints(extents) for n, (_, extents) in self.inputs.items()})

    def source(self, options: Mapping[str, Any]) -> Source:
        """Return what the parts of the model have in common when it runs in stages."""
        return Source(self._model, self._external, self._limits, self._values, options)

    def runs_in_stages(self, needed: NeedsValue, given: Mapping[str, Array] | None = None) -> bool:
        """Whether the model is cut in front of a node, since no input can be bound for it.

        Parameters
        ----------
        given
            Inputs of a run; None where every extent is known.
        """
        position = needed.position
        if position is None or self._layout or not is_divisible(self._model, position):
            return False
        new = needed.inputs - self.bound
        nbytes = [
            given[name].nbytes if given is not None else math.prod(_ints(extents)) * dtype.itemsize
            for name, (dtype, extents) in self.inputs.items()
            if name in new
        ]
        return not new or sum(nbytes) > self._limits.max_bound_bytes

    def compile(self, *, max_plans: int = DEFAULT_PLANS, **options: Any) -> OnnxExecutable:
        """Return an executable that plans for the first run of each signature.

        Parameters
        ----------
        max_plans
            Plans kept at a time; the one unused for longest goes first.
        options
            As for `asyncnet_gpu.compile`.
        """
        return OnnxExecutable(self, max_plans, options)

    @property
    def limits(self) -> Limits:
        """Caps under which the model is loaded."""
        return self._limits

    def __repr__(self) -> str:
        return f"<OnnxNet {self.name!r}: {len(self.inputs)} inputs, {len(self.outputs)} outputs>"


def _ints(extents: Extents | None) -> tuple[int, ...]:
    return tuple([e for e in extents or () if isinstance(e, int)])


def describe_input(entry: Any, shape: Sequence[int] | None) -> tuple[np.dtype[Any], Extents | None]:
    """Return dtype and extents of a graph input, with the shape that the caller binds.

    Raises
    ------
    OnnxImportError
        If the input is no tensor of a supported type.
    ShapeError
        If `shape` contradicts the file.
    """
    where = f"onnx input {entry.name[:200]!r}"
    if entry.type.WhichOneof("value") != "tensor_type":
        raise OnnxImportError(
            message(where, "kind of value", expected="a tensor",
                    got=entry.type.WhichOneof("value"), remedy="Convert the model.")
        )  # fmt: skip
    tensor = entry.type.tensor_type
    if tensor.elem_type == TensorProto.STRING:
        return np.dtype(np.uint8), None  # as bytes, see `ports`
    narrow = NARROW.get(tensor.elem_type)
    dtype = element_dtype(tensor.elem_type, where) if narrow is None else narrow.codes
    extents: Extents | None = None
    if tensor.HasField("shape"):
        extents = tuple([_extent(dim) for dim in tensor.shape.dim])
    if shape is not None:
        check_extents(entry.name, extents, tuple(shape))
        extents = tuple(int(e) for e in shape)
    return dtype, extents


def _extent(dim: Any) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def check_extents(name: str, extents: Extents | None, shape: tuple[int, ...]) -> None:
    """Raise `ShapeError` when a shape contradicts what the model says of an input."""
    if extents is None:
        return
    fits = len(extents) == len(shape)
    if fits and all(not isinstance(e, int) or e == s for e, s in zip(extents, shape, strict=True)):
        return
    raise ShapeError(
        message("onnx", f"shape of input {name!r}", expected=list(extents), got=list(shape),
                remedy="Give a shape that the model takes.")
    )  # fmt: skip


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


@final
class OnnxExecutable:
    """Executables of one model by signature. Safe to use from several threads.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, net: OnnxNet, max_plans: int, options: Mapping[str, Any]) -> None:
        if max_plans < 1:
            raise NetError(
                message("compile", "max_plans", expected="at least 1", got=max_plans,
                        remedy="Keep at least the plan in use.")
            )  # fmt: skip
        self._net = net
        self._max_plans = max_plans
        self._options = dict(options)
        self._plans: OrderedDict[Signature, _Plan] = OrderedDict()
        self._retired: list[_Plan] = []
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._closed = False
        self._stages: Stages | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(self._net.inputs)

    @property
    def n_plans(self) -> int:
        """Plans in the cache."""
        return len(self._plans)

    def plan_for(self, **inputs: object) -> Executable:
        """Return the executable that such inputs use, making it when it is not there."""
        with self._use(self._given(None, inputs)) as (plan, _):
            return plan.exe

    def run(
        self, inputs: Mapping[str, object] | None = None, /, *, timeout_s: float | None = None,
        **named: object,
    ) -> dict[str, Any]:  # fmt: skip
        """Execute the model and wait; as `asyncnet_gpu.Executable.run`."""
        given = self._given(inputs, named)
        if self._stages is None:
            try:
                with self._use(given) as (plan, arrays):
                    return plan.exe.run(arrays, timeout_s=timeout_s)
            except _InStages as cut:
                self._cut(cut.position)
        assert self._stages is not None
        self._check_open()
        return self._stages.run(given, timeout_s)

    def submit(
        self, inputs: Mapping[str, object] | None = None, /, *, deadline_s: float | None = None,
        **named: object,
    ) -> Run:  # fmt: skip
        """Start the model and return at once with a `Run`."""
        with self._use(self._given(inputs, named)) as (plan, arrays):
            run = plan.exe.submit(arrays, deadline_s=deadline_s)
            with self._lock:
                plan.users += 1
        run.add_done_callback(lambda _: self._release(plan))
        return run

    def _cut(self, position: int) -> None:
        """Go on with the model cut in front of a node: what that needs, no caller can give."""
        with self._making:
            if self._stages is None:
                options = {"max_plans": self._max_plans, **self._options}
                self._stages = Stages(self._net.source(options), position)

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

    @contextmanager
    def _use(self, given: dict[str, Any]) -> Iterator[tuple[_Plan, dict[str, Any]]]:
        """Hold the plan for some inputs; nobody retires it meanwhile."""
        plan = self._held(given)
        # Not what is bound by now: another thread may have bound more since this plan was made.
        arrays = {n: a for n, a in given.items() if n in plan.inputs}
        try:
            yield plan, arrays
        finally:
            self._release(plan)

    def _release(self, plan: _Plan) -> None:
        with self._lock:
            plan.users -= 1

    def _held(self, given: dict[str, Any]) -> _Plan:
        self._check_open()
        plan = self._find(given)
        while plan is None:
            with self._making:  # one compilation at a time: others may want the same
                self._check_open()
                plan = self._find(given) or self._make(given)
        self._close_retired()
        return plan

    def _check_open(self) -> None:
        if self._closed:
            raise AsyncNetError(
                message("run", "the executable is closed", expected="an open one", got="closed",
                        remedy="Compile the net again.")
            )  # fmt: skip

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
            if net.runs_in_stages(needed, given):
                assert needed.position is not None  # noqa: PT017 - not a test
                raise _InStages(str(needed), needed.position) from needed
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
        with self._making, self._lock:  # a plan in the making is freed as well
            plans = [*self._plans.values(), *self._retired]
            self._plans.clear()
            self._retired = []
        for plan in plans:
            plan.exe.close()
        if self._stages is not None:
            self._stages.close()

    def __enter__(self) -> OnnxExecutable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
