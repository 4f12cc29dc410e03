"""Reductions over axes: sums, means, products, extrema, norms and their logarithms.

float16 is accumulated in float32, on CUDA integers small enough to be promoted in 32 bits; sums of
integers wrap around. On CUDA the order of additions is fixed, so that equal inputs give equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    NUMBERS,
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.ops.blocks import Step, number, working_dtype
from asyncnet_gpu.ops.checks import as_ints, fail, normal_axes
from asyncnet_gpu.ops.elementwise_kernel import CUDA_TYPES
from asyncnet_gpu.ops.reduction_kernel import parts_scratch, reduce_launches, row_launches
from asyncnet_gpu.ops.strided import launch_all, nothing
from asyncnet_gpu.specs import TensorSpec, spec

_REDUCERS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}


def _axes(attrs: Attrs, ndim: int, where: str) -> tuple[int, ...]:
    if attrs["axes"] is None:
        return tuple(range(ndim))
    return normal_axes(as_ints(attrs["axes"], "axes", where=where), ndim, where=where)


def _kept_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([extent for axis, extent in enumerate(shape) if axis not in axes])


def _infer(name: str, identity: float | None) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        shape = ins[0].shape
        axes = _axes(attrs, len(shape), name)
        if identity is None and math.prod([shape[a] for a in axes]) == 0:
            fail(name, f"nothing to reduce over axes {axes} of shape {shape}",
                 expected="at least one element", got=0,
                 remedy="An extremum of nothing is not defined.")  # fmt: skip
        if attrs["keepdims"]:
            shape = tuple([1 if a in axes else extent for a, extent in enumerate(shape)])
        else:
            shape = _kept_shape(shape, axes)
        return (TensorSpec(shape, ins[0].dtype),)

    return infer


def reduce_step(xp: Any, function: str, x: Any, axes: tuple[int, ...], out: Any) -> Step:
    """Return the launch ``out = function.reduce(x)`` over `axes`, in the dtype of `out`."""
    if xp is np:
        ufunc = getattr(np, function)
        return partial(ufunc.reduce, x, axis=axes, dtype=out.dtype, out=out)
    return partial(getattr(xp, _REDUCERS[function]), x, axis=axes, out=out)


class _Reduction:
    """One row of the table below, as the functions of an `Op`.

    Parameters
    ----------
    function
        ufunc that combines.
    before, combine, finish
        Structs of ``reductions.cu``.
    identity
        Result for no elements; None when there is none.
    reference
        Of one row: a list of Python numbers.
    """

    def __init__(
        self, name: str, function: str, before: str, combine: str, finish: str,
        identity: float | None, reference: Callable[[list[Any]], Any],
    ) -> None:  # fmt: skip
        self.name, self.function, self.identity = name, function, identity
        self.before, self.combine, self.finish = before, combine, finish
        self.row = reference

    def scratch(self, ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
        """Partial results on CUDA; on the CPU mapped elements and sums in the working dtype."""
        dtype = working_dtype(ins[0].dtype)
        if device_kind != "cpu":
            axes = _axes(attrs, ins[0].ndim, self.name)
            return parts_scratch(ins[0], axes)
        sums = TensorSpec(outs[0].shape, dtype)
        return (sums, TensorSpec(ins[0].shape, dtype)) if self.before != "Same" else (sums,)

    def bind(self, xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        """One pass that combines, between those that map and finish."""
        x, axes = ins[0], _axes(attrs, ins[0].ndim, self.name)
        out = outs[0].reshape(_kept_shape(x.shape, axes))
        dtype = working_dtype(x.dtype)
        if not out.size:
            return nothing
        if not math.prod([x.shape[a] for a in axes]):
            return partial(xp.copyto, out, xp.asarray(self.identity, x.dtype))
        if xp is not np:
            scratch = [xp.empty(out.shape, dtype), xp.empty(x.shape, dtype)]
        total = out if dtype == x.dtype else scratch[0].reshape(out.shape)
        steps: list[Step] = []
        if self.before != "Same":
            mapped = scratch[1]
            if self.before == "Abs":
                steps.append(partial(xp.absolute, x, out=mapped))
            else:
                steps.append(partial(xp.multiply, x, x, out=mapped, dtype=dtype))
            x = mapped
        steps.append(reduce_step(xp, self.function, x, axes, total))
        length = x.size // out.size
        if self.finish == "Mean":
            steps.append(partial(xp.true_divide, total, number(xp, length, total), out=total))
        elif self.finish != "Same":
            steps.append(partial(getattr(xp, self.finish.lower()), total, out=total))
        if total is not out:
            steps.append(partial(xp.copyto, out, total, casting="same_kind"))
        return launch_all(steps)

    def kernel(
        self, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        """Launch on CUDA."""
        axes = _axes(attrs, ins[0].ndim, self.name)
        functions = (self.before, self.combine, self.finish)
        return reduce_launches(ins[0], outs[0], axes, functions, scratch)

    def reference(self, ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
        """Row by row in Python numbers: exact for integers."""
        return (by_rows(ins[0], attrs, self.name, self.row),)


def by_rows(x: Any, attrs: Attrs, where: str, row: Callable[[list[Any]], Any]) -> Any:
    """Apply `row` to the list of elements that each output reduces."""
    x = np.asarray(x)
    axes = _axes(attrs, x.ndim, where)
    kept = [a for a in range(x.ndim) if a not in axes]
    shape = tuple([x.shape[a] for a in kept])
    rows = x.transpose(*kept, *axes).reshape(math.prod(shape), -1 if x.size else 0)
    if not x.size:
        rows = np.empty((math.prod(shape), 0), x.dtype)
    found = [row(values.tolist()) for values in rows]
    if x.dtype.kind in "iu":
        bits = 8 * x.dtype.itemsize
        found = [value % (1 << bits) for value in found]
        if x.dtype.kind == "i":
            found = [v - (1 << bits) if v >> (bits - 1) else v for v in found]
    made = np.array(found, np.float64 if x.dtype.kind == "f" else x.dtype)
    if attrs["keepdims"]:
        shape = tuple([1 if a in axes else extent for a, extent in enumerate(x.shape)])
    return made.reshape(shape)


def _total(row: list[Any]) -> Any:
    if row and isinstance(row[0], int):
        return sum(row)
    finite = all(map(math.isfinite, row))
    return math.fsum(row) if finite else sum(row)


def _extremum(choose: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    return lambda row: math.nan if any(v != v for v in row) else choose(row)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf if value == 0 else math.nan


def _reference_lse(row: list[float]) -> float:
    top = max(row, default=-math.inf)
    if any(v != v for v in row) or not math.isfinite(top):
        return math.nan if any(v != v for v in row) else top
    return top + math.log(math.fsum([math.exp(v - top) for v in row]))


_EPS = {"float16": 1e-3, "float32": 1.2e-7, "float64": 2.3e-16}


def _cases(dtypes: frozenset[str], *, positive: bool, empty: bool) -> tuple[OpCase, ...]:
    def case(
        name: str, x: Any, axes: Any = None, keepdims: bool = False, *, perf: bool = False
    ) -> OpCase:
        # Errors grow with the root of the number of additions; float16 is rounded once.
        long = 1.0 if x.dtype.name == "float16" else 8 * max(x.size, 1) ** 0.5
        close = 2 * long * _EPS.get(x.dtype.name, 0.0)
        low, high = (0.5, 1.5) if positive and x.dtype.kind == "f" else (None, None)
        return OpCase(
            name, (x,), {"axes": axes, "keepdims": keepdims}, rtol=close, atol=close, low=low,
            high=high, perf=perf,
        )  # fmt: skip

    known = ("float32", "float64", "float16", "int32", "int64", "int8", "uint8")
    found = [case(f"all_{d}", spec((5, 7), d)) for d in known if d in dtypes]
    found += [
        case("rows", f32(4, 37), -1),
        case("columns", f32(37, 40), 0),
        case("columns_float16", spec((50, 33), "float16"), (0,)),
        case("middle", f32(3, 5, 4), 1, True),
        case("outer_axes", f32(3, 5, 4), (-1, 0)),
        case("many_axes", f32(2, 3, 2, 3, 2), (1, 3), True),
        case("no_axes", f32(3, 4), ()),
        case("one_element", f32(3, 1), 1),
        case("scalar", f32(), None),
        case("no_outputs", f32(0, 3), 1),
        case("parts", f32(2, 9001), 1),
        case("parts_of_columns", f32(1500, 20), 0),
        case("large", f32(330, 301), -1, perf=True),
    ]
    if empty:
        found.append(case("empty", f32(3, 0), 1))
    return tuple(found)


def _doc(formula: str, empty: str, dtypes: frozenset[str]) -> str:
    return f"""Compute ``{formula}`` over axes.

    Parameters
    ----------
    x: any shape; {", ".join(sorted(dtypes))}
    axes
        Axis or axes to reduce; None, the default, is all of them and () none.
    keepdims
        True leaves an extent of 1 where an axis was reduced.

    Returns
    -------
    The shape without `axes`, the same dtype. float16 is accumulated in float32. {empty}

    Raises
    ------
    ShapeError
        If an axis is out of range or given twice{", or there is nothing to reduce" * (not empty)}.
    """


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(flops=2.0 * ins[0].size, bytes=float(ins[0].nbytes + outs[0].nbytes))


def _define(
    name: str, kind: str, formula: str, function: str, structs: tuple[str, str, str],
    identity: float | None, reference: Callable[[list[Any]], Any], *,
    dtypes: frozenset[str] = NUMBERS, positive: bool = False,
) -> Op:  # fmt: skip
    made = _Reduction(name, function, *structs, identity, reference)
    return Op(
        name=name, kind=kind, n_inputs=(1, 1), attrs={"axes": None, "keepdims": False},
        doc=_doc(formula, "" if identity is None else f"Of nothing: {identity}.", dtypes),
        infer=_infer(name, identity), bind=made.bind, reference=made.reference,
        kernel=made.kernel, scratch=made.scratch, cost=_cost, dtypes=dtypes,
        cases=_cases(dtypes, positive=positive, empty=identity is not None),
    )  # fmt: skip


# -- log of a sum of exponentials ----------------------------------------------------------------


def _scratch_lse(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    if device_kind != "cpu":
        return ()
    dtype = working_dtype(ins[0].dtype)
    shape = tuple(
        [1 if a in _axes(attrs, ins[0].ndim, "") else e for a, e in enumerate(ins[0].shape)]
    )
    return (TensorSpec(ins[0].shape, dtype), *(TensorSpec(shape, dtype),) * 2)


def _bind_lse(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, axes = ins[0], _axes(attrs, ins[0].ndim, "reduce_log_sum_exp")
    kept = _kept_shape(x.shape, axes)
    out = outs[0].reshape(kept)
    if not out.size:
        return nothing
    if not x.size:
        return partial(xp.copyto, out, xp.asarray(-np.inf, x.dtype))
    if xp is not np:
        wide = tuple([1 if a in axes else e for a, e in enumerate(x.shape)])
        dtype = working_dtype(x.dtype)
        scratch = [xp.empty(x.shape, dtype), xp.empty(wide, dtype), xp.empty(wide, dtype)]
    powers, top, total = scratch
    zero, infinity = number(xp, 0, top), number(xp, np.inf, top)

    def only_finite() -> None:
        # The maximum may be infinite or NaN: shifting by 0 then gives the right answer.
        xp.copyto(top, zero, where=~(xp.absolute(top) < infinity))

    return launch_all(
        (
            reduce_step(xp, "maximum", x, axes, top.reshape(kept)),
            only_finite,
            partial(xp.subtract, x, top, out=powers),
            partial(xp.exp, powers, out=powers),
            reduce_step(xp, "add", powers, axes, total.reshape(kept)),
            partial(xp.log, total, out=total),
            partial(xp.add, total, top, out=total),
            partial(xp.copyto, out, total.reshape(kept), casting="same_kind"),
        )
    )


def _kernel_lse(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    axes = _axes(attrs, ins[0].ndim, "reduce_log_sum_exp")
    return row_launches(f"log_sum_exp<{CUDA_TYPES[ins[0].dtype.name]}>", ins[0], outs[0], axes)


_LSE = Op(
    name="reduce_log_sum_exp",
    kind="ReduceLogSumExp",
    doc=_doc("ln(sum of exp(x))", "Of nothing: -inf.", FLOATS),
    n_inputs=(1, 1),
    attrs={"axes": None, "keepdims": False},
    infer=_infer("reduce_log_sum_exp", -math.inf),
    bind=_bind_lse,
    reference=lambda ins, attrs: (by_rows(ins[0], attrs, "", _reference_lse),),
    kernel=_kernel_lse,
    scratch=_scratch_lse,
    cost=lambda ins, outs, attrs: Cost(22.0 * ins[0].size, float(4 * ins[0].nbytes)),
    dtypes=FLOATS,
    cases=(
        *_cases(FLOATS, positive=False, empty=True),
        OpCase(
            "infinities",
            (np.array([[-np.inf] * 3, [1, np.inf, 2], [np.nan, 1, 2], [900, 899, -np.inf]], "f4"),),
            {"axes": 1},
        ),
    ),
)

OPS = (
    _define("reduce_sum", "ReduceSum", "sum of x", "add", ("Same", "Sum", "Same"), 0, _total),
    _define("reduce_mean", "ReduceMean", "sum of x / number of elements", "add",
            ("Same", "Sum", "Mean"), math.nan,
            lambda row: _total(row) / len(row) if row else math.nan, dtypes=FLOATS),
    _define("reduce_prod", "ReduceProd", "product of x", "multiply", ("Same", "Product", "Same"),
            1, math.prod, positive=True),
    _define("reduce_max", "ReduceMax", "largest x; NaN if there is one", "maximum",
            ("Same", "Largest", "Same"), None, _extremum(max)),
    _define("reduce_min", "ReduceMin", "smallest x; NaN if there is one", "minimum",
            ("Same", "Smallest", "Same"), None, _extremum(min)),
    _define("reduce_l1", "ReduceL1", "sum of |x|", "add", ("Abs", "Sum", "Same"), 0,
            lambda row: _total([abs(v) for v in row])),
    _define("reduce_l2", "ReduceL2", "sqrt(sum of x²)", "add", ("Square", "Sum", "Sqrt"), 0,
            lambda row: math.sqrt(_total([v * v for v in row])), dtypes=FLOATS),
    _define("reduce_sum_square", "ReduceSumSquare", "sum of x²", "add", ("Square", "Sum", "Same"),
            0, lambda row: _total([v * v for v in row])),
    _define("reduce_log_sum", "ReduceLogSum", "ln(sum of x)", "add", ("Same", "Sum", "Log"),
            -math.inf, lambda row: _log(_total(row)), dtypes=FLOATS, positive=True),
    _LSE,
)  # fmt: skip
