"""How elementwise operators are put together: shapes, costs, docs, cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    Arrays,
    Attrs,
    Cost,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    same_dtype,
)
from asyncnet_gpu.ops.blocks import Formula, formula_bind, formula_scratch
from asyncnet_gpu.ops.elementwise_kernel import binary_kernel, unary_kernel
from asyncnet_gpu.specs import TensorSpec, broadcast, spec

BOOL = np.dtype(bool)

#: Relative error that one operation may leave, a few units in the last place.
CLOSE = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-13}

#: The order in which cases name dtypes.
_CASE_DTYPES = ("float32", "float64", "float16", "int32", "int64", "int8", "uint8", "bool")


def infer_elementwise(
    name: str, result: np.dtype[Any] | None = None
) -> Callable[[Specs, Attrs], Specs]:
    """Return `Op.infer`: the common shape, the common dtype or `result`."""

    def infer(ins: Specs, attrs: Attrs) -> Specs:
        dtype = same_dtype(ins, where=name)
        shape = broadcast([s.shape for s in ins], where=name)
        return (TensorSpec(shape, result or dtype),)

    return infer


def elementwise_cost(flops: float) -> Callable[[Specs, Specs, Attrs], Cost]:
    """Return `Op.cost`: `flops` for each element of the output, each byte touched once."""

    def cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
        moved = sum(s.nbytes for s in ins) + outs[0].nbytes
        return Cost(flops=flops * outs[0].size, bytes=float(moved))

    return cost


def ufunc_bind(function: str) -> Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]:
    """Return `Op.bind` of one ufunc."""

    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        return partial(getattr(xp, function), *ins, out=outs[0])

    return bind


def document(formula: str, operands: str, dtypes: frozenset[str], result: str, notes: str) -> str:
    """Return the docstring of an elementwise operator."""
    listed = ", ".join(sorted(dtypes))
    one = operands == "x"
    shapes = "any shape" if one else "shapes that broadcast, one dtype"
    errors = "the dtype is another" if one else "shapes do not broadcast or dtypes differ"
    return f"""Compute ``{formula}`` element by element.
{notes and f"{chr(10)}    {notes}{chr(10)}"}
    Parameters
    ----------
    {operands}: {shapes}; {listed}

    Returns
    -------
    {"The same shape" if one else "The common shape"}, {result}.

    Raises
    ------
    ShapeError
        If {errors}.
    """


def wide(array: Any) -> Any:
    """Return what a reference computes with: float64 for floats, integers as they are."""
    array = np.asarray(array)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def special_values() -> np.ndarray[Any, Any]:
    """Values at which formulas break."""
    return np.array(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -1e-30, 1.0, -1.0, 80.0, -80.0, 2.5, -3.5],
        np.float32,
    )


def cases_for(
    n: int, dtypes: frozenset[str], *, low: float, high: float, attrs: Attrs | None = None,
    special: bool = True, rounding: float = 1.0,
) -> tuple[OpCase, ...]:  # fmt: skip
    """Return the cases of an elementwise operator of `n` arrays.

    `rounding` scales the tolerance; floats are drawn from [low, high).
    """

    def case(name: str, inputs: Iterable[Any], *, perf: bool = False) -> OpCase:
        found = tuple(inputs)
        close = rounding * CLOSE.get(found[0].dtype.name, 0.0)
        return OpCase(
            name, found, attrs or {}, rtol=close, atol=close / 10, low=low, high=high, perf=perf
        )

    kinds = [d for d in _CASE_DTYPES if d in dtypes]
    if not kinds:
        return ()
    found = [case(f"plain_{d}", [spec((5, 7), d)] * n) for d in kinds]
    first = kinds[0]
    found.append(case("empty", [spec((0, 3), first)] * n))
    found.append(case("scalar", [spec((), first)] * n))
    found.append(case("large", [spec((330, 301), first)] * n, perf=True))
    if n > 1:
        found.append(case("broadcast", [spec((4, 1, 3), first), spec((5, 1), first)]))
        found.append(case("one_right", [spec((4, 3), first), spec((), first)]))
        found.append(case("one_left", [spec((1,), first), spec((70,), first)]))
    if special and first == "float32":
        x = special_values()
        grid = [x] if n == 1 else [x[:, None].copy(), x[None, :].copy()]
        found.append(case("special", grid))
    return tuple(found)


def unary(
    name: str, kind: str, function: str, formula: str, reference: Callable[[Any], Any], *,
    dtypes: frozenset[str] = FLOATS, flops: float = 1.0, result: np.dtype[Any] | None = None,
    low: float = -3.0, high: float = 3.0, cuda: str = "", since: int = 0, notes: str = "",
    steps: Formula | None = None, n_temporaries: int = 0, rounding: float = 1.0,
    special: bool = True,
) -> Op:  # fmt: skip
    """Define an operator of one array: one ufunc, or a formula given as `steps`.

    Parameters
    ----------
    function
        Name of the ufunc in NumPy and CuPy.
    reference
        On a float64 array.
    cuda
        Name of the struct in ``elementwise_functions.cuh``; `kind` unless given.
    since
        First ONNX operator set of `kind`; 0 when ONNX has no such operator.
    """
    extra: dict[str, Any] = {"bind": ufunc_bind(function)}
    if steps is not None:
        extra = {"bind": formula_bind(steps), "scratch": formula_scratch(n_temporaries)}
    return Op(
        name=name,
        kind=kind,
        doc=document(formula, "x", dtypes, "bool" if result else "the same dtype", notes),
        n_inputs=(1, 1),
        infer=infer_elementwise(name, result),
        reference=lambda ins, attrs: (reference(wide(ins[0])),),
        kernel=unary_kernel(cuda or kind),
        inplace=() if result is not None else (0,),
        cost=elementwise_cost(flops),
        cases=cases_for(1, dtypes, low=low, high=high, rounding=rounding, special=special),
        dtypes=dtypes,
        onnx={kind: OnnxMapping(since=since)} if since else {},
        **extra,
    )


def binary(
    name: str, kind: str, function: str, formula: str, reference: Callable[[Any, Any], Any], *,
    dtypes: frozenset[str] = FLOATS, flops: float = 1.0, result: np.dtype[Any] | None = None,
    low: float = -3.0, high: float = 3.0, cuda: str = "", since: int = 0, notes: str = "",
    rounding: float = 1.0, special: bool = True, **extra: Any,
) -> Op:  # fmt: skip
    """Define an operator of two arrays that broadcast; parameters as `unary`."""
    return Op(
        name=name,
        kind=kind,
        doc=document(formula, "a, b", dtypes, "bool" if result else "the same dtype", notes),
        n_inputs=(2, 2),
        infer=infer_elementwise(name, result),
        reference=lambda ins, attrs: (reference(wide(ins[0]), wide(ins[1])),),
        kernel=binary_kernel(cuda or kind),
        inplace=() if result is not None else (0, 1),
        cost=elementwise_cost(flops),
        cases=extra.pop("cases", None)
        or cases_for(2, dtypes, low=low, high=high, rounding=rounding, special=special),
        dtypes=dtypes,
        onnx={kind: OnnxMapping(since=since)} if since else {},
        **{"bind": ufunc_bind(function), **extra},
    )
