"""Elementwise arithmetic, comparisons and logic: one ufunc for each launch.

All of them broadcast like NumPy, take and give one dtype (comparisons give bool) and may write over
an input that dies. The formula of each stands in its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    ANY,
    FLOATS,
    INTEGERS,
    NUMBERS,
    Arrays,
    Attrs,
    Launch,
    Op,
    OpCase,
    Specs,
)
from asyncnet_gpu.ops.blocks import Step, number
from asyncnet_gpu.ops.elementwise_kernel import unary_kernel
from asyncnet_gpu.ops.strided import launch_all
from asyncnet_gpu.ops.ufunc import (
    BOOL,
    binary,
    cases_for,
    document,
    elementwise_cost,
    infer_elementwise,
    special_values,
    ufunc_bind,
    unary,
    wide,
)
from asyncnet_gpu.specs import spec

_SIGNED = NUMBERS - {"uint8", "uint16", "uint32", "uint64"}
_BOOLS = frozenset({"bool"})

# erf(x) = x P(x²) / Q(x²) on [-limit, limit]; at the limits, and so outside, it is exactly ±1, so
# that GELU ends in 0. Least squares in 60
# digits, weighted towards the smallest largest relative error: 2.3e-8 and 3.1e-17. All coefficients
# are positive, so that Horner's rule loses nothing.
_ERF32 = (
    3.890701,
    (1.1283791491679924, 0.19038782419224135, 0.05273816528877775, 0.0037628813119882916,
     0.0002844662084502246, 2.0452462254163813e-06),
    (1.0, 0.5020596062185104, 0.11409408781491122, 0.014963685131573182, 0.00116123751999124,
     3.802068485733453e-05),
)  # fmt: skip
_ERF64 = (
    5.888501776985888,
    (1.1283791670955126, 0.2201914691244623, 0.0661251334613579, 0.006890642748619672,
     0.000855766715993397, 5.695695066516373e-05, 3.901212541107714e-06, 1.6953335644148533e-07,
     6.761695552218201e-09, 1.7204122240695906e-10, 3.3369036808601265e-12,
     2.226400359446621e-14, 1.570632154479267e-17),
    (1.0, 0.528472942026429, 0.13475952106478803, 0.02198874309914068, 0.0025650918989072835,
     0.0002261348975623171, 1.5501983192740757e-05, 8.352373582264877e-07, 3.516570888488097e-08,
     1.1249228290706722e-09, 2.5501627898469265e-11, 3.318977844326777e-13,
     8.848037870351944e-16),
)  # fmt: skip


def _horner(xp: Any, t: Any, coefficients: Sequence[float], out: Any) -> list[Step]:
    *lower, second, first = [number(xp, c, t) for c in coefficients]
    steps: list[Step] = [
        partial(xp.multiply, t, first, out=out),
        partial(xp.add, out, second, out=out),
    ]
    for c in reversed(lower):
        steps += [partial(xp.multiply, out, t, out=out), partial(xp.add, out, c, out=out)]
    return steps


def erf_steps(xp: Any, x: Any, y: Any, temporaries: Sequence[Any], attrs: Attrs) -> list[Step]:
    """``y = erf(x)``; takes two temporaries."""
    square, total = temporaries[:2]
    limit, upper, lower = _ERF64 if x.dtype == np.float64 else _ERF32
    return [
        partial(xp.maximum, x, number(xp, -limit, x), out=y),
        partial(xp.minimum, y, number(xp, limit, x), out=y),
        partial(xp.multiply, y, y, out=square),
        *_horner(xp, square, upper, total),
        partial(xp.multiply, y, total, out=y),
        *_horner(xp, square, lower, total),
        partial(xp.true_divide, y, total, out=y),
    ]


def _erf_reference(x: Any) -> Any:
    from math import erf

    return np.array([erf(value) for value in x.reshape(-1)]).reshape(x.shape)


def _rsqrt_steps(xp: Any, x: Any, y: Any, temporaries: Sequence[Any], attrs: Attrs) -> list[Step]:
    return [partial(xp.sqrt, x, out=y), partial(xp.reciprocal, y, out=y)]


_UNARY = (
    unary("neg", "Neg", "negative", "-x", lambda x: 0 - x, dtypes=_SIGNED, since=1),
    unary("abs", "Abs", "absolute", "|x|", lambda x: np.where(x < 0, 0 - x, x), dtypes=NUMBERS,
          since=1),
    unary("sign", "Sign", "sign", "1, 0 or -1", lambda x: x / np.where(x == 0, 1, np.abs(x)),
          dtypes=_SIGNED, since=9, special=False),
    unary("square", "Square", "square", "x * x", lambda x: x * x, dtypes=NUMBERS),
    unary("exp", "Exp", "exp", "exp(x)", np.exp, flops=16, since=1, rounding=20),
    unary("expm1", "Expm1", "expm1", "exp(x) - 1, exact near 0", np.expm1, flops=20, rounding=20),
    unary("log", "Log", "log", "ln(x)", np.log, flops=16, low=0.1, high=9.0, since=1),
    unary("log1p", "Log1p", "log1p", "ln(1 + x), exact near 0", np.log1p, flops=20, low=-0.9),
    unary("sqrt", "Sqrt", "sqrt", "sqrt(x)", lambda x: x**0.5 + 0 * np.sqrt(x), flops=4, low=0.0,
          high=9.0, since=1, special=False),
    unary("rsqrt", "Rsqrt", "", "1 / sqrt(x)", lambda x: 1 / np.sqrt(x), flops=8, low=0.1,
          high=9.0, steps=_rsqrt_steps),
    unary("reciprocal", "Reciprocal", "reciprocal", "1 / x", lambda x: 1 / x, flops=4, low=0.5,
          high=4.0, since=1),
    unary("floor", "Floor", "floor", "largest integer that is not above x", np.floor, since=1),
    unary("ceil", "Ceil", "ceil", "smallest integer that is not below x", np.ceil, since=1),
    unary("round", "Round", "rint", "nearest integer, halves to even", np.round, since=11),
    unary("sin", "Sin", "sin", "sin(x)", np.sin, flops=16, since=7, rounding=4),
    unary("cos", "Cos", "cos", "cos(x)", np.cos, flops=16, since=7, rounding=4),
    unary("tan", "Tan", "tan", "tan(x)", lambda x: np.sin(x) / np.cos(x), flops=20, low=-1.4,
          high=1.4, since=7, rounding=4),
    unary("asin", "Asin", "arcsin", "arc sine of x", np.arcsin, flops=20, low=-1.0, high=1.0,
          since=7),
    unary("acos", "Acos", "arccos", "arc cosine of x", np.arccos, flops=20, low=-1.0, high=1.0,
          since=7),
    unary("atan", "Atan", "arctan", "arc tangent of x", np.arctan, flops=20, since=7),
    unary("sinh", "Sinh", "sinh", "(exp(x) - exp(-x)) / 2", np.sinh, flops=20, since=9,
          rounding=20),
    unary("cosh", "Cosh", "cosh", "(exp(x) + exp(-x)) / 2", np.cosh, flops=20, since=9,
          rounding=20),
    unary("tanh", "Tanh", "tanh", "tanh(x)", np.tanh, flops=16, since=1, rounding=2),
    unary("asinh", "Asinh", "arcsinh", "inverse of sinh", np.arcsinh, flops=20, since=9),
    unary("acosh", "Acosh", "arccosh", "inverse of cosh", np.arccosh, flops=20, low=1.0, high=9.0,
          since=9),
    unary("atanh", "Atanh", "arctanh", "inverse of tanh", np.arctanh, flops=20, low=-0.9, high=0.9,
          since=9),
    unary("erf", "Erf", "", "2 / sqrt(pi) * integral of exp(-t²) from 0 to x", _erf_reference,
          flops=28, since=9, steps=erf_steps, n_temporaries=2),
    unary("isnan", "IsNaN", "isnan", "x is NaN", lambda x: x != x, result=BOOL, since=9,
          cuda="IsNan"),
    unary("logical_not", "Not", "logical_not", "not x", lambda x: x == False,  # noqa: E712
          dtypes=_BOOLS, result=BOOL, since=1),
)  # fmt: skip

_TRUNCATED = "Integers are cut off towards zero; dividing one by zero gives 0."


def _div_scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    return outs if ins[0].dtype.kind == "i" and device_kind == "cpu" else ()


def _bind_div(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    a, b, out = ins[0], ins[1], outs[0]
    if out.dtype.kind == "f":
        return partial(xp.true_divide, a, b, out=out)
    if out.dtype.kind == "u":
        return partial(xp.floor_divide, a, b, out=out)
    # a - fmod(a, b) is the multiple of b nearest to a on the side of zero, so the floor is exact.
    left = scratch[0] if scratch else xp.empty(out.shape, out.dtype)
    return launch_all(
        (
            partial(xp.fmod, a, b, out=left),
            partial(xp.subtract, a, left, out=left),
            partial(xp.floor_divide, left, b, out=out),
        )
    )


def _cut(a: Any, b: Any) -> Any:
    if a.dtype.kind == "f":
        return a / b
    return np.trunc(a.astype(np.longdouble) / b.astype(np.longdouble)).astype(a.dtype)


def _floored(a: Any, b: Any) -> Any:
    return np.floor(a / b) if a.dtype.kind == "f" else np.floor(a / b).astype(a.dtype)


def _divisors(dtype: str) -> OpCase:
    """Return a case of both signs, with quotients that are whole and that are not."""
    a = np.arange(-12, 13).astype(dtype)[:, None].copy()
    b = np.array([-5, -3, -1, 1, 2, 7]).astype(dtype)
    close = 1e-6 if dtype == "float32" else 0.0
    return OpCase(f"signs_{dtype}", (a, b), rtol=close, atol=close)


def _division(dtypes: frozenset[str]) -> tuple[OpCase, ...]:
    # Integers of the generator are small and may be 0: here they come as arrays.
    floats = cases_for(2, dtypes & FLOATS, low=1.0, high=9.0, special=False)
    signed = [_divisors(d) for d in ("int8", "int32", "int64") if d in dtypes]
    a, b = np.arange(30, dtype=np.uint8), np.arange(30, dtype=np.uint8)[::-1] % 7 + 1
    return (*floats, *signed, OpCase("unsigned", (a, b), rtol=0, atol=0))


def _powers() -> tuple[OpCase, ...]:
    a, b = np.arange(-4, 5, dtype=np.int32)[:, None].copy(), np.arange(5, dtype=np.int32)
    return (
        *cases_for(2, FLOATS, low=0.1, high=3.0, rounding=10, special=False),
        OpCase("int32", (a, b), rtol=0, atol=0),
    )


_ARITHMETIC = (
    binary("add", "Add", "add", "a + b", lambda a, b: a + b, dtypes=NUMBERS, since=7),
    binary("sub", "Sub", "subtract", "a - b", lambda a, b: a - b, dtypes=NUMBERS, since=7),
    binary("mul", "Mul", "multiply", "a * b", lambda a, b: a * b, dtypes=NUMBERS, since=7),
    binary("div", "Div", "", "a / b", _cut, dtypes=NUMBERS, flops=4, since=7, notes=_TRUNCATED,
           bind=_bind_div, scratch=_div_scratch, cases=_division(NUMBERS)),
    binary("floor_div", "FloorDiv", "floor_divide", "floor(a / b)", _floored,
           dtypes=INTEGERS, flops=4, cases=_division(INTEGERS)),
    binary("pow", "Pow", "power", "a ** b", lambda a, b: a**b, dtypes=NUMBERS, flops=20,
           notes="Exponents of integers must not be negative.", cases=_powers()),
    binary("maximum", "Maximum", "maximum", "max(a, b), NaN if either is",
           lambda a, b: np.where((a > b) | (a != a), a, b), dtypes=NUMBERS),
    binary("minimum", "Minimum", "minimum", "min(a, b), NaN if either is",
           lambda a, b: np.where((a < b) | (a != a), a, b), dtypes=NUMBERS),
    binary("atan2", "Atan2", "arctan2", "angle of the point (b, a)", np.arctan2, flops=24),
)  # fmt: skip

_LOGIC = (
    binary("equal", "Equal", "equal", "a == b", lambda a, b: a == b, dtypes=ANY, result=BOOL,
           since=7),
    binary("not_equal", "NotEqual", "not_equal", "a != b", lambda a, b: a != b, dtypes=ANY,
           result=BOOL),
    binary("less", "Less", "less", "a < b", lambda a, b: a < b, dtypes=NUMBERS, result=BOOL,
           since=7),
    binary("less_equal", "LessOrEqual", "less_equal", "a <= b", lambda a, b: a <= b,
           dtypes=NUMBERS, result=BOOL, since=12, cuda="LessEqual"),
    binary("greater", "Greater", "greater", "a > b", lambda a, b: a > b, dtypes=NUMBERS,
           result=BOOL, since=7),
    binary("greater_equal", "GreaterOrEqual", "greater_equal", "a >= b", lambda a, b: a >= b,
           dtypes=NUMBERS, result=BOOL, since=12, cuda="GreaterEqual"),
    binary("logical_and", "And", "logical_and", "a and b", lambda a, b: a & b, dtypes=_BOOLS,
           result=BOOL, since=7),
    binary("logical_or", "Or", "logical_or", "a or b", lambda a, b: a | b, dtypes=_BOOLS,
           result=BOOL, since=7),
    binary("logical_xor", "Xor", "logical_xor", "either a or b", lambda a, b: a ^ b, dtypes=_BOOLS,
           result=BOOL, since=7),
)  # fmt: skip


def _bind_isinf(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    if attrs["positive"] and attrs["negative"]:
        return ufunc_bind("isinf")(xp, ins, outs, attrs, scratch)
    if not attrs["positive"] and not attrs["negative"]:
        return partial(xp.copyto, outs[0], False)
    infinity = number(xp, np.inf if attrs["positive"] else -np.inf, ins[0])
    return partial(xp.equal, ins[0], infinity, out=outs[0])


def _isinf_reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x = wide(ins[0])
    return ((attrs["positive"] & (x > 1e308)) | (attrs["negative"] & (x < -1e308)),)


_ISINF = Op(
    name="isinf",
    kind="IsInf",
    doc=document(
        "x is infinite", "x", FLOATS, "bool",
        "`positive` and `negative` say which of the two infinities count.",
    ),
    n_inputs=(1, 1),
    attrs={"positive": True, "negative": True},
    infer=infer_elementwise("isinf", BOOL),
    bind=_bind_isinf,
    reference=_isinf_reference,
    kernel=unary_kernel("IsInf", lambda attrs, _: (attrs["positive"], attrs["negative"])),
    cost=elementwise_cost(1),
    dtypes=FLOATS,
    cases=(
        *(
            OpCase(f"special_{p}_{n}", (special_values(),), {"positive": p, "negative": n})
            for p in (True, False)
            for n in (True, False)
        ),
        OpCase("empty", (spec((0, 3), "float32"),)),
        OpCase("float64", (spec((3, 4), "float64"),)),
    ),
)  # fmt: skip

OPS: tuple[Op, ...] = (*_UNARY, *_ARITHMETIC, *_LOGIC, _ISINF)

__all__ = ["OPS", "erf_steps"]
