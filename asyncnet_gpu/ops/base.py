"""What an operator is: data and small functions, found by file name, known to no table.

An operator is written once. `infer` runs while the user builds the net, `bind` once per plan, slot
and step, and the launch that `bind` returns once per run. Everything that can be decided before
the first run belongs into `bind`: arrays have fixed addresses, so views, index tables and packed
arguments are made there and the launch is as short as it can be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asyncnet_gpu.errors import ShapeError, message
from asyncnet_gpu.specs import TensorSpec, spec

Attrs = Mapping[str, Any]
Specs = tuple[TensorSpec, ...]
Arrays = Sequence[Any]
Launch = Callable[[], object]


class _Required:
    """Default of an attribute that has none."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


@dataclass(frozen=True, slots=True)
class Cost:
    """Work of one node, for the cost models: never a promise.

    Attributes
    ----------
    flops
        Arithmetic operations.
    bytes
        Bytes read and written.
    gil
        True when the launch holds Python's lock while it works, so that two cannot overlap on
        the CPU.
    interpreted
        True when the launch is a function of somebody's, which a backend can only call from Python.
    """

    flops: float
    bytes: float
    gil: bool = False
    interpreted: bool = False


@dataclass(frozen=True, slots=True)
class KernelLaunch:
    """One launch of a CUDA kernel, as data; the CUDA backend compiles, packs and repeats it.

    Attributes
    ----------
    file
        Name of a file in ``kernels/``; or "" when `source` is given.
    entry
        Kernel name or C++ name expression, for example ``"unary<float, Relu>"``.
    grid, block
        Launch shape in blocks and threads, x y z.
    args
        In the order of the kernel's parameters: device arrays (passed as pointers), NumPy scalars
        (passed by value) or 0-d structured NumPy arrays (structs passed by value).
    shared_bytes
        Dynamic shared memory.
    source
        CUDA C++ of the user's own kernel, instead of `file`.
    product
        ``(a, b, out)`` where all that the launch does is ``out = a @ b`` under NumPy's rules: a
        library may do that instead.
    """

    file: str
    entry: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    args: tuple[Any, ...]
    shared_bytes: int = 0
    source: str = ""
    product: tuple[Any, Any, Any] | None = None


@dataclass(frozen=True, slots=True)
class OpCase:
    """One conformance case of an operator: what to feed it and how close it must come.

    Attributes
    ----------
    name
        Unique within the operator.
    inputs
        A spec (filled from a seeded generator, normal for floats, small integers otherwise) or the
        array itself, for each input.
    attrs
        Attributes of the node.
    rtol, atol
        Against the float64 reference; derived from dtype and length of the reduction.
    low, high
        When given, floats are drawn uniformly from this range instead.
    perf
        Also timed by the operator benchmark.
    backends
        Kinds of backend on which this case can run ("cpu", "cuda").
    """

    name: str
    inputs: tuple[TensorSpec | np.ndarray[Any, Any], ...]
    attrs: Attrs = field(default_factory=dict)
    rtol: float = 1e-5
    atol: float = 1e-6
    low: float | None = None
    high: float | None = None
    perf: bool = False
    backends: tuple[str, ...] = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class OnnxMapping:
    """How an ONNX node becomes nodes of ours.

    Attributes
    ----------
    since, until
        Opset range of the default domain in which this mapping holds; `until` None means newest.
    build
        ``build(importer_context, node) -> blobs`` (see `asyncnet_gpu.onnx`). None when inputs,
        attributes and meaning are the same as the operator's own.
    """

    since: int = 1
    until: int | None = None
    build: Callable[..., Any] | None = None


def default_cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    """Elementwise guess: one operation per output element, each byte touched once."""
    moved = sum(s.nbytes for s in ins) + sum(s.nbytes for s in outs)
    return Cost(flops=float(sum(s.size for s in outs)), bytes=float(moved))


def no_scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    """Most operators need no temporary."""
    return ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Op:
    """Definition of an operator. One module-level tuple ``OPS`` per file in ``ops/`` lists them.

    Attributes
    ----------
    name
        snake_case; the method of `AsyncNet`.
    kind
        CamelCase; the operator's name in plans and, where it exists, in ONNX.
    doc
        NumPy-style docstring of the method: formula, shapes, dtypes, errors, source.
    n_inputs
        Smallest and largest number of blobs; largest None means any.
    attrs
        Attribute name to default; `REQUIRED` when there is none.
    infer
        ``(ins, attrs) -> outs``; raises `ShapeError` with ``where`` = the operator's name.
    bind
        ``(xp, ins, outs, attrs, scratch) -> launch`` where `xp` is numpy or cupy and the arrays
        have the planned addresses. The launch writes into `outs`, takes nothing, allocates
        nothing large, and may run any number of times. Inputs may be strided views; outputs are
        always C-contiguous. Runs on NumPy and CuPy alike.
    reference
        ``(ins, attrs) -> outs``: slow, obvious, float64, NumPy only, independent of `bind`.
    view
        ``(array, attrs) -> array``: the first output is a view of the first input with the same
        meaning under NumPy's basic slicing, or raises ValueError where the layout forbids it (then
        the node copies through `bind`). For operators with several outputs a tuple.
    inplace
        Inputs whose bytes the first output may overwrite when nobody reads them later: the launch
        must be right when ``outs[0]`` *is* ``ins[i]``.
    mutates
        Inputs that the launch updates in place (parameters); such an operator returns them and
        ``outs`` holds the same arrays.
    kernel
        ``(ins, outs, attrs, scratch) -> launches`` for the CUDA backend, or None when this node has
        no hand-written kernel (then `bind` runs with CuPy). Arrays have ``.shape .dtype .strides
        .size`` and ``.flags.c_contiguous``; no CuPy is imported here.
    scratch
        ``(ins, outs, attrs, device_kind) -> specs`` of temporaries; planned per stream.
    cost
        ``(ins, outs, attrs) -> Cost``.
    cases
        Conformance cases; at least one.
    onnx
        ONNX operator name to mapping.
    dtypes
        Names of the dtypes that the operator takes for its first input.
    deterministic
        Equal inputs give equal bits on one backend, whatever runs beside it.
    effect
        True when the launch does something beyond its outputs, so that the node is never dropped,
        folded or repeated.
    packed
        True when the launch cannot take strided inputs (it sees bare pointers): views that are not
        C-contiguous are then copied first.
    """

    name: str
    kind: str
    doc: str
    n_inputs: tuple[int, int | None]
    infer: Callable[[Specs, Attrs], Specs]
    bind: Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]
    reference: Callable[[Arrays, Attrs], tuple[Any, ...]]
    attrs: Attrs = field(default_factory=dict)
    view: Callable[[Any, Attrs], Any] | None = None
    inplace: tuple[int, ...] = ()
    mutates: tuple[int, ...] = ()
    kernel: Callable[[Arrays, Arrays, Attrs, Arrays], Sequence[KernelLaunch] | None] | None = None
    scratch: Callable[[Specs, Specs, Attrs, str], Specs] = no_scratch
    cost: Callable[[Specs, Specs, Attrs], Cost] = default_cost
    cases: tuple[OpCase, ...] = ()
    onnx: Mapping[str, OnnxMapping] = field(default_factory=dict)
    dtypes: frozenset[str] | None = None
    deterministic: bool = True
    effect: bool = False
    packed: bool = False

    def check_inputs(self, ins: Specs) -> None:
        """Raise `ShapeError` when the number of inputs or the first dtype does not fit."""
        low, high = self.n_inputs
        if len(ins) < low or (high is not None and len(ins) > high):
            wanted = (
                str(low) if low == high else f"{low} to {'any number' if high is None else high}"
            )
            raise ShapeError(
                message(
                    self.name,
                    "wrong number of inputs",
                    expected=wanted,
                    got=len(ins),
                    remedy=f"See help(AsyncNet.{self.name}).",
                )
            )
        if self.dtypes is not None and ins and ins[0].dtype.name not in self.dtypes:
            raise ShapeError(
                message(
                    self.name,
                    "unsupported dtype",
                    expected="one of " + ", ".join(sorted(self.dtypes)),
                    got=ins[0].dtype.name,
                    remedy="Use net.cast first.",
                )
            )


FLOATS = frozenset({"float16", "float32", "float64"})
INTEGERS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})
NUMBERS = FLOATS | INTEGERS
ANY = NUMBERS | {"bool"}


def same_dtype(ins: Specs, *, where: str) -> np.dtype[Any]:
    """Return the dtype that all inputs share or raise `ShapeError`: nothing is promoted."""
    first = ins[0].dtype
    for other in ins[1:]:
        if other.dtype != first:
            raise ShapeError(
                message(
                    where,
                    "dtypes differ",
                    expected=f"all {first.name}",
                    got=other.dtype.name,
                    remedy="Use net.cast on one of them.",
                )
            )
    return first


def f32(*shape: int) -> TensorSpec:
    """Shorthand for cases: a float32 spec."""
    return spec(shape, "float32")
