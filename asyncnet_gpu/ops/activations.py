"""Activations: elementwise functions of one array with numbers as parameters, and PReLU.

Each row has the formula, the NumPy calls that compute it in place, an independent reference, and
the parameters of its CUDA function. Sources stand in the notes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    NUMBERS,
    Arrays,
    Attrs,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.blocks import Formula, Step, formula_bind, formula_scratch, number
from asyncnet_gpu.ops.checks import fail, one_of
from asyncnet_gpu.ops.elementwise import erf_steps
from asyncnet_gpu.ops.elementwise_kernel import Kernel, binary_kernel, unary_kernel, unary_launch
from asyncnet_gpu.ops.strided import launch_all
from asyncnet_gpu.ops.ufunc import (
    cases_for,
    document,
    elementwise_cost,
    infer_elementwise,
    special_values,
    wide,
)
from asyncnet_gpu.specs import broadcast

Bind = Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]
Parameters = Callable[[Attrs, np.dtype[Any]], tuple[Any, Any]]


def _activation(
    name: str, kind: str, formula: str, reference: Callable[[Any, Attrs], Any], *,
    steps: Formula | None = None, bind: Bind | None = None, n_temporaries: int = 0,
    flops: float, attrs: Attrs | None = None, cases: Sequence[OpCase] = (),
    case_attrs: Attrs | None = None, dtypes: frozenset[str] = FLOATS, since: int = 0,
    parameters: Parameters | None = None, kernel: Kernel | None = None, rounding: float = 4.0,
    infer: Callable[[Specs, Attrs], Specs] | None = None, notes: str = "",
) -> Op:  # fmt: skip
    extra: dict[str, Any] = {"bind": bind}
    if steps is not None:
        extra = {"bind": formula_bind(steps), "scratch": formula_scratch(n_temporaries)}
    made = cases_for(1, dtypes, low=-6.0, high=6.0, attrs=case_attrs, rounding=rounding)
    return Op(
        name=name,
        kind=kind,
        doc=document(formula, "x", dtypes, "the same dtype", notes),
        n_inputs=(1, 1),
        infer=infer or infer_elementwise(name),
        reference=lambda ins, given: (reference(wide(ins[0]), given),),
        attrs=attrs or {},
        kernel=kernel or unary_kernel(kind, parameters),
        inplace=(0,),
        cost=elementwise_cost(flops),
        cases=(*made, *cases),
        dtypes=dtypes,
        onnx={kind: OnnxMapping(since=since)} if since else {},
        **extra,
    )


def _alpha(attrs: Attrs, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    return attrs["alpha"], 0


def _bind_relu(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return partial(xp.maximum, ins[0], number(xp, 0, ins[0]), out=outs[0])


def _leaky(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
    # Of x and alpha x the larger is right for alpha <= 1, the smaller for alpha > 1.
    choose = xp.maximum if attrs["alpha"] <= 1 else xp.minimum
    return [
        partial(xp.multiply, x, number(xp, attrs["alpha"], x), out=t[0]),
        partial(choose, x, t[0], out=y),
    ]


def _thresholded(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
    # x <= alpha is false for NaN, which so stays; as a number it is 1 where x becomes 0.
    zero = number(xp, 0, x)
    return [
        partial(xp.less_equal, x, number(xp, attrs["alpha"], x), out=t[0], casting="unsafe"),
        partial(xp.copyto, y, x),
        lambda: xp.copyto(y, zero, where=t[0] != 0),
    ]


def _exp_minus(xp: Any, x: Any, y: Any, alpha: float = 1.0) -> list[Step]:
    """``y = 1 + exp(-alpha x)``; overflows to infinity, whose reciprocal is the right 0."""
    first = (
        partial(xp.negative, x, out=y)
        if alpha == 1
        else partial(xp.multiply, x, number(xp, -alpha, x), out=y)
    )
    return [first, partial(xp.exp, y, out=y), partial(xp.add, y, number(xp, 1, x), out=y)]


def _sigmoid(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
    return [*_exp_minus(xp, x, y), partial(xp.reciprocal, y, out=y)]


def _silu(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
    return [*_exp_minus(xp, x, t[0], attrs["alpha"]), partial(xp.true_divide, x, t[0], out=y)]


def _half_x_times(xp: Any, x: Any, y: Any, factor: Any) -> list[Step]:
    """``y = x / 2 * (1 + factor)``."""
    return [
        partial(xp.add, factor, number(xp, 1, x), out=factor),
        partial(xp.multiply, factor, number(xp, 0.5, x), out=factor),
        partial(xp.multiply, x, factor, out=y),
    ]


def _gelu(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
    inner = t[0]
    if attrs["approximate"] == "tanh":
        return [
            partial(xp.multiply, x, x, out=inner),
            partial(xp.multiply, inner, number(xp, 0.044715, x), out=inner),
            partial(xp.add, inner, number(xp, 1, x), out=inner),
            partial(xp.multiply, inner, x, out=inner),
            partial(xp.multiply, inner, number(xp, (2 / np.pi) ** 0.5, x), out=inner),
            partial(xp.tanh, inner, out=inner),
            *_half_x_times(xp, x, y, inner),
        ]
    return [
        partial(xp.multiply, x, number(xp, 0.5**0.5, x), out=inner),
        *erf_steps(xp, inner, inner, t[1:], attrs),
        *_half_x_times(xp, x, y, inner),
    ]


def _infer_gelu(ins: Specs, attrs: Attrs) -> Specs:
    one_of(attrs["approximate"], "approximate", ("none", "tanh"), where="gelu")
    return (ins[0],)


def _infer_celu(ins: Specs, attrs: Attrs) -> Specs:
    if attrs["alpha"] == 0:
        fail("celu", "alpha=0", expected="another number: x is divided by it", got=0,
             remedy="Take relu, which is the limit.")  # fmt: skip
    return (ins[0],)


def _kernel_gelu(ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Any:
    function = "GeluTanh" if attrs["approximate"] == "tanh" else "Gelu"
    return unary_launch(function, ins[0], outs[0])


def _gelu_reference(x: Any, attrs: Attrs) -> Any:
    from math import erf

    if attrs["approximate"] == "tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    cdf = [(1 + erf(value / 2**0.5)) / 2 for value in x.reshape(-1)]
    return x * np.array(cdf).reshape(x.shape)


def _exponential(
    inside: Callable[[Attrs], float], before: Callable[[Attrs], float],
    outside: Callable[[Attrs], float],
) -> Formula:  # fmt: skip
    """Return the steps of ``outside * (max(x, 0) + before * (exp(inside * min(x, 0)) - 1))``."""

    def steps(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
        zero, low = number(xp, 0, x), t[0]
        made: list[Step] = [partial(xp.minimum, x, zero, out=low)]
        if inside(attrs) != 1:
            made.append(partial(xp.multiply, low, number(xp, inside(attrs), x), out=low))
        made.append(partial(xp.expm1, low, out=low))
        if before(attrs) != 1:
            made.append(partial(xp.multiply, low, number(xp, before(attrs), x), out=low))
        made += [partial(xp.maximum, x, zero, out=y), partial(xp.add, y, low, out=y)]
        if outside(attrs) != 1:
            made.append(partial(xp.multiply, y, number(xp, outside(attrs), x), out=y))
        return made

    return steps


def _softplus(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
    return [partial(xp.logaddexp, x, number(xp, 0, x), out=y)]


def _mish(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
    return [
        partial(xp.logaddexp, x, number(xp, 0, x), out=t[0]),
        partial(xp.tanh, t[0], out=t[0]),
        partial(xp.multiply, x, t[0], out=y),
    ]


def _softsign(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
    return [
        partial(xp.absolute, x, out=t[0]),
        partial(xp.add, t[0], number(xp, 1, x), out=t[0]),
        partial(xp.true_divide, x, t[0], out=y),
    ]


def _line(xp: Any, x: Any, y: Any, slope: float, offset: float) -> list[Step]:
    """``y = min(max(slope * x + offset, 0), 1)``."""
    return [
        partial(xp.multiply, x, number(xp, slope, x), out=y),
        partial(xp.add, y, number(xp, offset, x), out=y),
        partial(xp.maximum, y, number(xp, 0, x), out=y),
        partial(xp.minimum, y, number(xp, 1, x), out=y),
    ]


def _hard_sigmoid(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
    return _line(xp, x, y, attrs["alpha"], attrs["beta"])


def _hard_swish(xp: Any, x: Any, y: Any, t: Sequence[Any], attrs: Attrs) -> list[Step]:
    return [*_line(xp, x, t[0], 1 / 6, 0.5), partial(xp.multiply, x, t[0], out=y)]


def _limits(attrs: Attrs, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the limits of `clip` in the dtype: an integer has no infinity."""
    if dtype.kind == "f":
        return float(attrs["low"]), float(attrs["high"])
    info = np.iinfo(dtype)
    low, high = (min(max(attrs[k], info.min), info.max) for k in ("low", "high"))
    return int(low), int(high)


def _infer_clip(ins: Specs, attrs: Attrs) -> Specs:
    for name in ("low", "high"):
        value = attrs[name]
        whole = ins[0].dtype.kind == "f" or value in (np.inf, -np.inf) or value == int(value)
        if not whole:
            fail("clip", f"{name}={value!r} for {ins[0].dtype.name}", expected="a whole number",
                 got=value, remedy="Round it, or cast the blob to a float.")  # fmt: skip
    return (ins[0],)


def _bind_clip(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, out = ins[0], outs[0]
    low, high = (number(xp, limit, x) for limit in _limits(attrs, x.dtype))
    steps: list[Step] = []
    if attrs["low"] != -np.inf:
        steps.append(partial(xp.maximum, x, low, out=out))
    if attrs["high"] != np.inf or not steps:
        steps.append(partial(xp.minimum, out if steps else x, high, out=out))
    return launch_all(steps)


def _infer_prelu(ins: Specs, attrs: Attrs) -> Specs:
    same_dtype(ins, where="prelu")
    if broadcast([s.shape for s in ins], where="prelu") != ins[0].shape:
        fail("prelu", "the slope is larger than x", expected=f"a shape that broadcasts to "
             f"{ins[0].shape}", got=ins[1].shape, remedy="Reshape the slope.")  # fmt: skip
    return (ins[0],)


def _bind_prelu(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, slope, out = ins[0], ins[1], outs[0]
    zero = number(xp, 0, x)
    low = scratch[0] if scratch else xp.empty(out.shape, out.dtype)
    return launch_all(
        (
            partial(xp.minimum, x, zero, out=low),
            partial(xp.multiply, low, slope, out=low),
            partial(xp.maximum, x, zero, out=out),
            partial(xp.add, out, low, out=out),
        )
    )


_PRELU = Op(
    name="prelu",
    kind="PRelu",
    doc="""Compute ``max(x, 0) + slope * min(x, 0)`` element by element.

    Parameters
    ----------
    x: any shape, float
    slope: broadcasts to the shape of `x`, same dtype

    Returns
    -------
    Shape and dtype of `x`.

    Raises
    ------
    ShapeError
        If `slope` does not broadcast to `x` or dtypes differ.

    Notes
    -----
    Source: He et al., "Delving Deep into Rectifiers", 2015, section 2.1.
    """,
    n_inputs=(2, 2),
    infer=_infer_prelu,
    bind=_bind_prelu,
    reference=lambda ins, attrs: (np.where(ins[0] < 0, wide(ins[0]) * wide(ins[1]), wide(ins[0])),),
    kernel=binary_kernel("PRelu"),
    inplace=(0,),
    scratch=lambda ins, outs, attrs, kind: outs if kind == "cpu" else (),
    cost=elementwise_cost(4),
    dtypes=FLOATS,
    cases=(
        OpCase("channels", (f32(2, 5, 3), f32(5, 1))),
        OpCase("one_slope", (f32(4, 7), f32(1))),
        OpCase("each", (f32(6, 5), f32(6, 5))),
        OpCase("special", (special_values(), np.full(1, 0.25, np.float32))),
        OpCase("empty", (f32(0, 3), f32(3))),
    ),
)

_SELU = {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}


def _smooth(alpha: float, x: Any) -> Any:
    return np.where(x < 0, alpha * (np.exp(np.minimum(x, 0)) - 1), x)


OPS = (
    _activation("relu", "Relu", "max(x, 0)", lambda x, _: np.where(x < 0, 0, x), bind=_bind_relu,
                flops=1, dtypes=NUMBERS, since=1, rounding=0),
    _activation("leaky_relu", "LeakyRelu", "x if x >= 0 else alpha * x",
                lambda x, a: np.where(x < 0, a["alpha"] * x, x), steps=_leaky, n_temporaries=1,
                flops=2, attrs={"alpha": 0.01}, parameters=_alpha, since=1,
                cases=(OpCase("steep", (f32(5, 7),), {"alpha": 1.5}),
                       OpCase("folded", (f32(5, 7),), {"alpha": -0.5}))),
    _activation("thresholded_relu", "ThresholdedRelu", "x if x > alpha else 0",
                lambda x, a: np.where(x <= a["alpha"], 0, x), steps=_thresholded,
                n_temporaries=1, flops=1, attrs={"alpha": 1.0}, parameters=_alpha, since=10),
    _activation("sigmoid", "Sigmoid", "1 / (1 + exp(-x))", lambda x, _: 1 / (1 + np.exp(-x)),
                steps=_sigmoid, flops=20, since=1, rounding=20),
    _activation("silu", "Silu", "x / (1 + exp(-alpha * x))",
                lambda x, a: x * (1 / (1 + np.exp(-a["alpha"] * x))), steps=_silu,
                n_temporaries=1, flops=20, attrs={"alpha": 1.0}, parameters=_alpha, rounding=20,
                cases=(OpCase("alpha", (f32(5, 7),), {"alpha": 1.7}),),
                notes="Also called swish; Ramachandran et al., 2017, section 4."),
    _activation("gelu", "Gelu", "x / 2 * (1 + erf(x / sqrt(2)))", _gelu_reference, steps=_gelu,
                n_temporaries=3, flops=40, attrs={"approximate": "none"}, infer=_infer_gelu,
                kernel=_kernel_gelu, since=20, rounding=20,
                cases=(OpCase("tanh", (f32(5, 7),), {"approximate": "tanh"}),),
                notes="`approximate` \"tanh\" takes tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)) "
                      "for the erf.\n    Source: Hendrycks and Gimpel, 2016, section 2."),
    _activation("elu", "Elu", "x if x >= 0 else alpha * (exp(x) - 1)",
                lambda x, a: _smooth(a["alpha"], x),
                steps=_exponential(lambda a: 1, lambda a: a["alpha"], lambda a: 1),
                n_temporaries=1, flops=20, attrs={"alpha": 1.0}, parameters=_alpha, since=6,
                cases=(OpCase("alpha", (f32(5, 7),), {"alpha": 2.0}, rtol=1e-4),), rounding=20),
    _activation("celu", "Celu", "x if x >= 0 else alpha * (exp(x / alpha) - 1)",
                lambda x, a: a["alpha"] * _smooth(1.0, x / a["alpha"]),
                steps=_exponential(lambda a: 1 / a["alpha"], lambda a: a["alpha"], lambda a: 1),
                n_temporaries=1, flops=20, attrs={"alpha": 1.0}, parameters=_alpha, since=12,
                infer=_infer_celu,
                cases=(OpCase("alpha", (f32(5, 7),), {"alpha": 2.0}, rtol=1e-4),), rounding=20),
    _activation("selu", "Selu", "gamma * (x if x >= 0 else alpha * (exp(x) - 1))",
                lambda x, a: a["gamma"] * _smooth(a["alpha"], x),
                steps=_exponential(lambda a: 1, lambda a: a["alpha"], lambda a: a["gamma"]),
                n_temporaries=1, flops=20, attrs=_SELU, since=6, rounding=20,
                parameters=lambda attrs, _: (attrs["alpha"], attrs["gamma"]),
                notes="Source: Klambauer et al., 2017, section 2."),
    _activation("softplus", "Softplus", "ln(1 + exp(x))",
                lambda x, _: np.where(x > 40, x, np.log(1 + np.exp(np.minimum(x, 40)))),
                steps=_softplus, flops=40, since=1),
    _activation("softsign", "Softsign", "x / (1 + |x|)",
                lambda x, _: x / (1 + np.abs(x)), steps=_softsign,
                n_temporaries=1, flops=4, since=1),
    _activation("mish", "Mish", "x * tanh(ln(1 + exp(x)))",
                lambda x, _: x * np.tanh(np.logaddexp(0, x)), steps=_mish, n_temporaries=1,
                flops=60, since=18, rounding=20),
    _activation("hard_sigmoid", "HardSigmoid", "min(max(alpha * x + beta, 0), 1)",
                lambda x, a: np.clip(a["alpha"] * x + a["beta"], 0, 1), steps=_hard_sigmoid,
                flops=4, attrs={"alpha": 0.2, "beta": 0.5}, since=6,
                parameters=lambda attrs, _: (attrs["alpha"], attrs["beta"])),
    _activation("hard_swish", "HardSwish", "x * min(max(x / 6 + 1 / 2, 0), 1)",
                lambda x, _: x * np.clip((x + 3) / 6, 0, 1), steps=_hard_swish, n_temporaries=1,
                flops=5, since=14, rounding=8),
    _activation("clip", "Clip", "min(max(x, low), high)",
                lambda x, a: np.clip(x, *_limits(a, x.dtype)), bind=_bind_clip, flops=2,
                dtypes=NUMBERS, attrs={"low": -np.inf, "high": np.inf}, infer=_infer_clip,
                case_attrs={"low": 0.0, "high": 2.0}, parameters=_limits, rounding=0,
                cases=(OpCase("low_only", (f32(5, 7),), {"low": -0.5}),
                       OpCase("high_only", (f32(5, 7),), {"high": 0.5}),
                       OpCase("neither", (f32(5, 7),)),
                       OpCase("crossed", (f32(5, 7),), {"low": 1.0, "high": -1.0}))),
    _PRELU,
)  # fmt: skip
