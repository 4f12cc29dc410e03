"""Plans inside a step: bodies of control operators, bound like a plan of its own.

A body's plan has one stream, which is the step's, and lies in the step's scratch. Its inputs are
the step's arrays: where one of these moves with the caller's input, words of argument buffers are
patched as they are outside (see `bound`), and nothing is bound again that need not be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, final, runtime_checkable

import cupy
import numpy as np
from cupy.cuda import memory, runtime

from asyncnet_gpu.backends.base import ProgramOptions
from asyncnet_gpu.backends.cuda.arrays import INPUT_ALIGNMENT, array_over, pretend_memory, upload
from asyncnet_gpu.backends.cuda.bound import BoundPlan, Room, run_with_cupy
from asyncnet_gpu.backends.cuda.context import Call, MovingCall, StepContext
from asyncnet_gpu.backends.cuda.copy import pinned_memory
from asyncnet_gpu.backends.cuda.faults import explained, status_of
from asyncnet_gpu.backends.cuda.launch import pack
from asyncnet_gpu.backends.cuda.resources import Resources
from asyncnet_gpu.ops.base import Arrays, Attrs, KernelLaunch
from asyncnet_gpu.ops.bodies import Body, Numbered
from asyncnet_gpu.ops.strided import copy_launch, nothing
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.specs import TensorSpec, contiguous_strides

_ALIGNMENT = 256
#: Its place in an argument buffer, in words (see `launch`).
_SECOND_ARGUMENT = 2


@runtime_checkable
class PlannedBody(Protocol):
    """A body that is a net; its inputs and outputs in the order of the body's."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def plan(self, device_kind: str) -> Plan:
        """Return the plan on one stream."""


@dataclass(frozen=True, slots=True)
class _Constant:
    """Memory of a constant of the body."""

    block: Any


def _upload_constants(plan: Plan, resources: Resources, device: int) -> dict[int, _Constant]:
    graph, top = plan.graph, 0
    starts: dict[str, int] = {}
    for name, value in graph.values.items():
        starts[name] = top
        top += -(-max(1, value.nbytes) // _ALIGNMENT) * _ALIGNMENT
    made: dict[int, _Constant] = {}
    if not starts:
        return made
    whole = resources.memory(top, device)
    for name, value in graph.values.items():
        block = pretend_memory(whole.ptr + starts[name], value.nbytes, device)
        upload(block, value, device)
        made[graph.blobs[name].storage] = _Constant(block)
    return made


@final
class NestedPlan:
    """A body bound to the scratch of a step.

    Parameters
    ----------
    ins
        For their layout; `place` says where they are.
    scratch
        The arena of the plan and the scratch of its nodes.
    """

    def __init__(
        self, context: StepContext, body: PlannedBody, ins: Arrays, scratch: Arrays
    ) -> None:
        assert context.resources is not None
        self._context, self._resources = context, context.resources
        self._inputs, self._outputs = body.inputs, body.outputs
        self.plan = body.plan("cuda")
        stream = context.stream
        arena, work = [
            pretend_memory(block.data.ptr, block.nbytes, stream.device) for block in scratch
        ]
        room = Room((stream.device,), [stream], {0: arena}, [work])
        constants = _upload_constants(self.plan, self._resources, stream.device)
        options = ProgramOptions(devices=(stream.device,))
        self.bound = BoundPlan(self.plan, constants, options, self._resources, room)
        #: Inputs in a form that kernels do not take are copied here first.
        self._copies: dict[str, Any] = {}
        for name, array in zip(self._inputs, ins, strict=True):
            if name in self.plan.graph.inputs and not _fits(array):
                self._copies[name] = self._own(array)
        self._given: dict[str, Any] = {}
        self._before: list[Call] = []
        self._calls: list[Call] = []
        self._steps: list[int] = []

    def _own(self, array: Any) -> Any:
        block = self._resources.memory(array.nbytes, self._context.stream.device)
        spec = TensorSpec(array.shape, array.dtype)
        return array_over(block, 0, spec, contiguous_strides(spec.shape, array.itemsize))

    def reads(self, array: Any) -> bool:
        """Whether the plan reads the memory that begins with `array`, as placed."""
        return any(given.data.ptr == array.data.ptr for given in self._given.values())

    def place(self, ins: Arrays) -> list[Any]:
        """Take the arrays that the body reads from now on; return where its results will be."""
        given: dict[str, Any] = {}
        self._before = []
        for name, array in zip(self._inputs, ins, strict=True):
            if name not in self.plan.graph.inputs:
                continue
            own = self._copies.get(name)
            if own is not None:
                self._before.append(copy_call(self._context, array, own))
            given[name] = array if own is None else own
        self._given = given
        self.bound.set_inputs(given)
        self._calls = [call for calls in self.bound.calls for call in calls]
        self._steps = [i for i, calls in enumerate(self.bound.calls) for _ in calls]
        outputs = self.plan.graph.outputs
        return [self.bound.current(outputs[key], given) for key in self._outputs]

    def __call__(self) -> None:
        """Issue all steps on the stream."""
        for call in self._before:
            call()
        calls: Any = iter(self._calls)
        try:
            for call in calls:
                call()
        except Exception as error:
            # The iterator knows how many calls are left: no counter in the loop.
            self._blame(len(self._calls) - calls.__length_hint__() - 1, error)
            raise

    def _blame(self, position: int, error: Exception) -> None:
        node = self.plan.node_of(self.plan.steps[self._steps[position]])
        where = f"{node.op.kind} {node.name!r} of net {self.plan.graph.name!r}"
        if status_of(error) is not None or isinstance(error, memory.OutOfMemoryError):
            raise explained(where, error) from error
        error.add_note(f"in {where}")


def _fits(array: Any) -> bool:
    """Whether an array is as inputs of a plan are."""
    return bool(array.flags.c_contiguous and array.data.ptr % INPUT_ALIGNMENT == 0)


def copy_call(context: StepContext, source: Any, target: Any) -> Call:
    """Return a launch that copies within the device, whatever the layouts."""
    call = context.copy(source, target) if target.flags.c_contiguous else None
    return with_cupy(context, partial(cupy.copyto, target, source)) if call is None else call


def with_cupy(context: StepContext, launch: Call) -> Call:
    """Return a launch through CuPy on the step's stream."""
    assert context.resources is not None
    return partial(
        run_with_cupy, context.stream.stream, context.resources.temporaries.malloc, launch
    )


@final
class StreamBinder:
    """Makes the launches of a control operator on the stream of its step; see `ops.bodies`.

    What a step owns is made when it binds for the first time, and used again when it is told that
    its operands have moved.
    """

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self.plans: dict[str, NestedPlan] = {}
        #: Whether the operands are where they will be; before, nothing is placed.
        self.placed = False
        self._pinned: list[Any] = []
        self._n_read = 0

    @property
    def device_kind(self) -> str:
        """For what kind of device bodies are planned."""
        return "cuda"

    def again(self) -> None:
        """Begin to bind: numbers to read come in the same order as before."""
        self._n_read = 0

    def body(self, key: str, body: Body, ins: Arrays, scratch: Arrays) -> tuple[Call, Arrays]:
        """Bind a nested plan, once; place it."""
        assert isinstance(body, PlannedBody)
        if key not in self.plans:
            self.plans[key] = NestedPlan(self._context, body, ins, scratch)
        plan = self.plans[key]
        if not self.placed:
            return plan, [plan.bound.arrays[plan.plan.graph.outputs[k]] for k in body.outputs]
        return plan, plan.place(ins)

    def copy(self, source: Any, target: Any) -> Call:
        """Copy one array into another."""
        return copy_call(self._context, source, target)

    def take(self, rows: Any, target: Any) -> Numbered:
        """Copy the row of the pass, along the first axis, into an array."""
        return self._row(rows, target, source_moves=True)

    def put(self, source: Any, rows: Any) -> Numbered:
        """Copy an array into the row of the pass."""
        return self._row(rows, source, source_moves=False)

    def _row(self, rows: Any, other: Any, *, source_moves: bool) -> Numbered:
        if not rows.size:
            return _ignore
        row, stride = rows[0], rows.strides[0]
        base, fixed, stream = row.data.ptr, other.data.ptr, self._context.stream
        if row.flags.c_contiguous and other.flags.c_contiguous:
            copy, tail = runtime.memcpyAsync, (row.nbytes, runtime.memcpyDeviceToDevice, stream.ptr)
            if source_moves:
                return lambda i: copy(fixed, base + i * stride, *tail)
            return lambda i: copy(base + i * stride, fixed, *tail)
        launch = copy_launch(row, other) if source_moves else copy_launch(other, row)
        packed = None if launch is None else pack(launch, stream.device, stream.ptr)
        if packed is None:
            return self._row_by_cupy(rows, other, source_moves=source_moves)
        words, at, call = packed.words, packed.pointers[0 if source_moves else 1][0], packed.call

        def copy_row(i: int) -> None:
            words[at] = base + i * stride
            call()

        return copy_row

    def _row_by_cupy(self, rows: Any, other: Any, *, source_moves: bool) -> Numbered:
        def copy_row(i: int) -> None:
            pair = (other, rows[i]) if source_moves else (rows[i], other)
            with_cupy(self._context, partial(cupy.copyto, *pair))()

        return copy_row

    def write(self, target: Any) -> Numbered:
        """Write the number of the pass, where a body reads it."""
        if self.placed and not any(plan.reads(target) for plan in self.plans.values()):
            return _ignore
        stream = self._context.stream
        launch = KernelLaunch("control.cu", "put_number", (1, 1, 1), (1, 1, 1),
                              (target, np.int64(0)))  # fmt: skip
        packed = pack(launch, stream.device, stream.ptr)
        assert packed is not None
        words, call = packed.words, packed.call

        def write(i: int) -> None:
            words[_SECOND_ARGUMENT] = i
            call()

        return write

    def read(self, array: Any) -> Callable[[], Any]:
        """Return a function that fetches one number and waits for it."""
        if self._n_read == len(self._pinned):
            self._pinned.append(pinned_memory(8))
        pinned = self._pinned[self._n_read]
        self._n_read += 1
        word = np.frombuffer(pinned, array.dtype, 1)
        stream = self._context.stream.ptr
        fetch = partial(runtime.memcpyAsync, pinned.ptr, array.data.ptr, array.nbytes,
                        runtime.memcpyDeviceToHost, stream)  # fmt: skip

        def read() -> Any:
            fetch()
            # RAW on the host: the number is there when everything on the stream has ended.
            runtime.streamSynchronize(stream)
            return word.item()

        return read


def _ignore(i: int) -> None:
    """Take the place of a copy that nobody needs."""


@final
class ControlCall(MovingCall):
    """A control operator bound to a step.

    Parameters
    ----------
    bind
        Of `asyncnet_gpu.ops.control`, with a binder in the place of an array namespace.
    """

    def __init__(
        self, context: StepContext, bind: Callable[..., Call], ins: Arrays, outs: Arrays,
        attrs: Attrs, scratch: Arrays,
    ) -> None:  # fmt: skip
        self._binder = StreamBinder(context)
        self._bind = partial(bind, self._binder, attrs=attrs, scratch=scratch)
        self._bind(ins, outs)  # compiles kernels and makes what the step owns
        self._launch: Call = nothing

    def place(self, ins: Arrays, outs: Arrays) -> None:
        """Take the arrays that the step works on from now on."""
        self._binder.placed = True
        self._binder.again()
        self._launch = self._bind(ins, outs)

    @property
    def largest_nbytes(self) -> int:
        """Bytes of the largest blob that a step within writes."""
        return max([plan.bound.largest_nbytes for plan in self._binder.plans.values()], default=0)

    def __call__(self) -> object:
        """Issue everything."""
        return self._launch()


def bind_control(
    bind: Callable[..., Call], bodies: Sequence[object], context: StepContext, ins: Arrays,
    outs: Arrays, attrs: Attrs, scratch: Arrays,
) -> ControlCall | None:  # fmt: skip
    """Return a control operator as a call, or None where a body is no net."""
    if context.resources is None or not all(isinstance(body, PlannedBody) for body in bodies):
        return None
    return ControlCall(context, bind, ins, outs, attrs, scratch)
