"""Optimizer steps of the training domain, as plain arithmetic: new values are outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


class _Arithmetic:
    """Shorthand for formulas on values of the net."""

    def __init__(self, context: NodeContext, like: Any) -> None:
        self._context = context
        self._like = like

    def number(self, value: float) -> Any:
        return np.asarray(value, self._like.dtype)

    def __call__(self, op: str, *values: Any) -> Any:
        full = [self.number(v) if isinstance(v, float) else v for v in values]
        return self._context.emit(op, *full)


def _groups(context: NodeContext, n: int) -> list[tuple[Any, ...]]:
    """Return value, gradient and states of each optimized tensor."""
    values = context.tensors()[2:]
    count = len(values) // n
    if count * n != len(values) or not count:
        context.fail("inputs", expected=f"a multiple of {n} after the first two", got=len(values),
                     remedy="The file is broken.")  # fmt: skip
    return [tuple(values[i + k * count] for k in range(n)) for i in range(count)]


def _optimizer(n: int, step: Callable[..., tuple[Any, ...]]) -> OnnxMapping:
    def build(context: NodeContext, node: Any) -> Any:
        rate, count = context.x(0), context.x(1)
        made = [step(context, rate, count, *group) for group in _groups(context, n)]
        return tuple(row[k] for k in range(n - 1) for row in made)

    return OnnxMapping(build=build)


def _scalar(context: NodeContext, value: Any, like: Any) -> Any:
    return context.emit("cast", context.emit("reshape", value, shape=()), dtype=like.dtype.name)


def _regularised(context: NodeContext, do: _Arithmetic, x: Any, g: Any) -> Any:
    return do("add", g, do("mul", x, context.attr_float("norm_coefficient", 0.0)))


def _adagrad(context: NodeContext, rate: Any, count: Any, x: Any, g: Any, h: Any) -> Any:
    do = _Arithmetic(context, x)
    decay = context.attr_float("decay_factor", 0.0)
    t = _scalar(context, count, x)
    r = do("div", _scalar(context, rate, x), do("add", do("mul", t, decay), 1.0))
    g = _regularised(context, do, x, g)
    h_new = do("add", h, do("mul", g, g))
    adaptive = do("add", do("sqrt", h_new), context.attr_float("epsilon", 1e-6))
    return do("sub", x, do("div", do("mul", g, r), adaptive)), h_new


def _adam(context: NodeContext, rate: Any, count: Any, x: Any, g: Any, v: Any, h: Any) -> Any:
    do = _Arithmetic(context, x)
    alpha, beta = context.attr_float("alpha", 0.9), context.attr_float("beta", 0.999)
    g = _regularised(context, do, x, g)
    v_new = do("add", do("mul", v, alpha), do("mul", g, 1.0 - alpha))
    h_new = do("add", do("mul", h, beta), do("mul", do("mul", g, g), 1.0 - beta))
    root = do("add", do("sqrt", h_new), context.attr_float("epsilon", 1e-6))
    t = _scalar(context, count, x)
    rate = _scalar(context, rate, x)
    # The correction of the start-up does not apply to step 0.
    first = do("sqrt", do("sub", 1.0, do("pow", do.number(beta), t)))
    corrected = do("div", do("mul", rate, first), do("sub", 1.0, do("pow", do.number(alpha), t)))
    scale = do("where", do("greater", t, 0.0), corrected, rate)
    new = do("sub", x, do("div", do("mul", v_new, scale), root))
    post = 1.0 - context.attr_float("norm_coefficient_post", 0.0)
    return do("mul", new, post), v_new, h_new


def _momentum(context: NodeContext, rate: Any, count: Any, x: Any, g: Any, v: Any) -> Any:
    do = _Arithmetic(context, x)
    alpha, beta = context.attr_float("alpha"), context.attr_float("beta")
    g = _regularised(context, do, x, g)
    t = _scalar(context, count, x)
    factor = do("where", do("greater", t, 0.0), beta, 1.0)
    v_new = do("add", do("mul", v, alpha), do("mul", g, factor))
    step = v_new
    if context.attr_str("mode") == "nesterov":
        step = do("add", g, do("mul", v_new, alpha))
    return do("sub", x, do("mul", step, _scalar(context, rate, x))), v_new


NODES = {
    "ai.onnx.preview.training::Adagrad": _optimizer(3, _adagrad),
    "ai.onnx.preview.training::Adam": _optimizer(4, _adam),
    "ai.onnx.preview.training::Momentum": _optimizer(3, _momentum),
}
