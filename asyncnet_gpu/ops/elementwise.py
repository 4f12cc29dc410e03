"""Elementwise arithmetic, comparisons, logic and activations: one ufunc, or a few, per launch.

All of them broadcast like NumPy, take and give one dtype (comparisons give bool) and may write over
an input that dies. Formulas stand with each entry of the tables below.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    ANY,
    FLOATS,
    NUMBERS,
    Arrays,
    Attrs,
    Cost,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.specs import TensorSpec, broadcast, spec

_BOOL = np.dtype(bool)


def _infer(name: str, result: np.dtype[Any] | None) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        dtype = same_dtype(ins, where=name)
        shape = broadcast([s.shape for s in ins], where=name)
        return (TensorSpec(shape, result or dtype),)

    return infer


def _cost(flops: float) -> Callable[[Specs, Specs, Attrs], Cost]:
    def cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
        moved = sum(s.nbytes for s in ins) + outs[0].nbytes
        return Cost(flops=flops * outs[0].size, bytes=float(moved))

    return cost


def _ufunc(function: str) -> Callable[..., Launch]:
    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        return partial(getattr(xp, function), *ins, out=outs[0])

    return bind


def _document(name: str, formula: str, n: int) -> str:
    operands = "x" if n == 1 else "a, b"
    return f"""Compute ``{formula}`` element by element.

    Parameters
    ----------
    {operands}: broadcastable shapes, one dtype

    Returns
    -------
    The common shape.

    Raises
    ------
    ShapeError
        If shapes do not broadcast or dtypes differ.
    """


def _wide(array: Any) -> Any:
    return np.asarray(array, np.float64) if np.asarray(array).dtype.kind == "f" else array


def _ufunc_reference(function: str) -> Callable[[Arrays, Attrs], tuple[Any, ...]]:
    def reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
        return (getattr(np, function)(*map(_wide, ins)),)

    return reference


def _cases(n: int, low: float, high: float, kinds: frozenset[str]) -> tuple[OpCase, ...]:
    def case(name: str, dtype: str, *shapes: tuple[int, ...]) -> OpCase:
        wide = {"float16": 4e-3, "float32": 1e-5, "float64": 1e-12}.get(dtype, 0.0)
        return OpCase(
            name, tuple(spec(s, dtype) for s in shapes[:n]), rtol=wide, atol=wide / 10,
            low=low, high=high,
        )  # fmt: skip

    found = [
        case(f"plain_{dtype}", dtype, (5, 7), (5, 7))
        for dtype in ("float32", "float64", "float16", "int32", "int64", "bool")
        if dtype in kinds
    ]
    first = "float32" if "float32" in kinds else "bool"
    found.append(case("empty", first, (0, 3), (0, 3)))
    found.append(case("scalar", first, (), ()))
    if n == 2:
        found.append(case("broadcast", first, (4, 1, 3), (5, 1)))
    return tuple(found)


def _plain(
    name: str, kind: str, function: str, formula: str, *, n: int, flops: float = 1.0,
    dtypes: frozenset[str] = FLOATS, result: np.dtype[Any] | None = None,
    low: float = -3.0, high: float = 3.0, onnx: bool = True,
) -> Op:  # fmt: skip
    return Op(
        name=name,
        kind=kind,
        doc=_document(name, formula, n),
        n_inputs=(n, n),
        infer=_infer(name, result),
        bind=_ufunc(function),
        reference=_ufunc_reference(function),
        inplace=() if result is not None else tuple(range(n)),
        cost=_cost(flops),
        cases=_cases(n, low, high, dtypes),
        dtypes=dtypes,
        onnx={kind: OnnxMapping()} if onnx else {},
    )


_SIGNED = NUMBERS - {"uint8", "uint16", "uint32", "uint64"}
_LOGIC = frozenset({"bool"})

_UNARY = (
    _plain("neg", "Neg", "negative", "-x", n=1, dtypes=_SIGNED),
    _plain("abs", "Abs", "absolute", "|x|", n=1, dtypes=NUMBERS),
    _plain("exp", "Exp", "exp", "exp(x)", n=1, flops=16),
    _plain("log", "Log", "log", "ln(x)", n=1, flops=16, low=0.1, high=9.0),
    _plain("sqrt", "Sqrt", "sqrt", "sqrt(x)", n=1, flops=4, low=0.0, high=9.0),
    _plain("reciprocal", "Reciprocal", "reciprocal", "1 / x", n=1, flops=4, low=0.5, high=4.0),
    _plain("floor", "Floor", "floor", "floor(x)", n=1),
    _plain("ceil", "Ceil", "ceil", "ceil(x)", n=1),
    _plain("round", "Round", "rint", "round half to even", n=1),
    _plain("sin", "Sin", "sin", "sin(x)", n=1, flops=16),
    _plain("cos", "Cos", "cos", "cos(x)", n=1, flops=16),
    _plain("tanh", "Tanh", "tanh", "tanh(x)", n=1, flops=16),
    _plain("sign", "Sign", "sign", "sign(x)", n=1, dtypes=NUMBERS),
    _plain("isnan", "IsNaN", "isnan", "x is NaN", n=1, result=_BOOL),
    _plain("logical_not", "Not", "logical_not", "not x", n=1, dtypes=_LOGIC, result=_BOOL),
)

_BINARY = (
    _plain("add", "Add", "add", "a + b", n=2, dtypes=NUMBERS),
    _plain("sub", "Sub", "subtract", "a - b", n=2, dtypes=NUMBERS),
    _plain("mul", "Mul", "multiply", "a * b", n=2, dtypes=NUMBERS),
    _plain("pow", "Pow", "power", "a ** b", n=2, flops=20, low=0.1, high=3.0, onnx=False),
    _plain("maximum", "Maximum", "maximum", "max(a, b)", n=2, dtypes=NUMBERS, onnx=False),
    _plain("minimum", "Minimum", "minimum", "min(a, b)", n=2, dtypes=NUMBERS, onnx=False),
    _plain("equal", "Equal", "equal", "a == b", n=2, dtypes=ANY, result=_BOOL),
    _plain("less", "Less", "less", "a < b", n=2, dtypes=NUMBERS, result=_BOOL),
    _plain("less_equal", "LessOrEqual", "less_equal", "a <= b", n=2, dtypes=NUMBERS, result=_BOOL),
    _plain("greater", "Greater", "greater", "a > b", n=2, dtypes=NUMBERS, result=_BOOL),
    _plain(
        "greater_equal", "GreaterOrEqual", "greater_equal", "a >= b", n=2, dtypes=NUMBERS,
        result=_BOOL,
    ),
    _plain("logical_and", "And", "logical_and", "a and b", n=2, dtypes=_LOGIC, result=_BOOL),
    _plain("logical_or", "Or", "logical_or", "a or b", n=2, dtypes=_LOGIC, result=_BOOL),
    _plain("logical_xor", "Xor", "logical_xor", "a xor b", n=2, dtypes=_LOGIC, result=_BOOL),
)  # fmt: skip


def _bind_div(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    # Integers: towards zero, as C and ONNX have it; through float64, exact up to 2**53.
    a, b, out = ins[0], ins[1], outs[0]
    if out.dtype.kind == "f":
        return partial(xp.true_divide, a, b, out=out)
    return lambda: xp.copyto(out, xp.trunc(xp.true_divide(a, b)), casting="unsafe")


def _reference_div(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    a, b = (np.asarray(x, np.float64) for x in ins)
    exact = a / b
    return (exact if np.asarray(ins[0]).dtype.kind == "f" else np.trunc(exact),)


_DIV = Op(
    name="div",
    kind="Div",
    doc=_document("div", "a / b (integers: towards zero)", 2),
    n_inputs=(2, 2),
    infer=_infer("div", None),
    bind=_bind_div,
    reference=_reference_div,
    cost=_cost(4),
    cases=_cases(2, 1.0, 9.0, frozenset({"float32", "float64", "int32"})),
    dtypes=NUMBERS,
    onnx={"Div": OnnxMapping()},
)


def _bind_relu(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    # A zero of the array's own dtype: a Python 0 would be converted at every launch.
    return partial(xp.maximum, ins[0], xp.zeros((), ins[0].dtype), out=outs[0])


def _bind_sigmoid(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    # 1 / (1 + exp(-x)) = 0.5 * tanh(x / 2) + 0.5: no overflow for large |x|.
    x, out = ins[0], outs[0]
    half = xp.full((), 0.5, x.dtype)
    multiply, tanh, add = xp.multiply, xp.tanh, xp.add

    def launch() -> None:
        multiply(x, half, out=out)
        tanh(out, out=out)
        multiply(out, half, out=out)
        add(out, half, out=out)

    return launch


def _bind_clip(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, out = ins[0], outs[0]
    low = xp.full((), attrs["low"], x.dtype)
    high = xp.full((), attrs["high"], x.dtype)

    def launch() -> None:
        xp.maximum(x, low, out=out)
        xp.minimum(out, high, out=out)

    return launch


def _activation(
    name: str, kind: str, formula: str, bind: Callable[..., Launch],
    reference: Callable[[Any, Attrs], Any], *, flops: float, attrs: Attrs | None = None,
    case_attrs: Attrs | None = None, dtypes: frozenset[str] = FLOATS, onnx: bool = True,
) -> Op:  # fmt: skip
    cases = tuple(
        OpCase(c.name, c.inputs, case_attrs or {}, c.rtol, c.atol, c.low, c.high)
        for c in _cases(1, -6.0, 6.0, dtypes)
    )
    return Op(
        name=name,
        kind=kind,
        doc=_document(name, formula, 1),
        n_inputs=(1, 1),
        infer=_infer(name, None),
        bind=bind,
        reference=lambda ins, given: (reference(_wide(ins[0]), given),),
        attrs=attrs or {},
        inplace=(0,),
        cost=_cost(flops),
        cases=(*cases, OpCase("large", (f32(1000, 100),), case_attrs or {}, perf=True)),
        dtypes=dtypes,
        onnx={kind: OnnxMapping()} if onnx else {},
    )


_ACTIVATIONS = (
    _activation(
        "relu", "Relu", "max(x, 0)", _bind_relu, lambda x, _: np.where(x > 0, x, 0),
        flops=1, dtypes=NUMBERS,
    ),
    _activation(
        "sigmoid", "Sigmoid", "1 / (1 + exp(-x))", _bind_sigmoid,
        lambda x, _: 1 / (1 + np.exp(-x)), flops=20,
    ),
    _activation(
        "clip", "Clip", "min(max(x, low), high)", _bind_clip,
        lambda x, a: np.clip(x, a["low"], a["high"]), flops=2, dtypes=NUMBERS,
        attrs={"low": -np.inf, "high": np.inf}, case_attrs={"low": -1.0, "high": 2.0}, onnx=False,
    ),
)  # fmt: skip

OPS = (*_UNARY, *_BINARY, _DIV, *_ACTIVATIONS)
