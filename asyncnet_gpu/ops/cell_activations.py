"""Activations of recurrent cells, in place: name to function and default alpha and beta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _sigmoid(xp: Any, x: Any, a: float, b: float) -> None:
    # 1 / (1 + exp(-x)) = 0.5 * tanh(x / 2) + 0.5: no overflow for large |x|.
    xp.multiply(x, 0.5, out=x)
    xp.tanh(x, out=x)
    xp.multiply(x, 0.5, out=x)
    xp.add(x, 0.5, out=x)


def _tanh(xp: Any, x: Any, a: float, b: float) -> None:
    xp.tanh(x, out=x)


def _relu(xp: Any, x: Any, a: float, b: float) -> None:
    xp.maximum(x, 0, out=x)


def _affine(xp: Any, x: Any, a: float, b: float) -> None:
    xp.multiply(x, a, out=x)
    xp.add(x, b, out=x)


def _leaky(xp: Any, x: Any, a: float, b: float) -> None:
    xp.multiply(x, a, out=x, where=x < 0)


def _thresholded(xp: Any, x: Any, a: float, b: float) -> None:
    xp.multiply(x, 0, out=x, where=x <= a)


def _scaled_tanh(xp: Any, x: Any, a: float, b: float) -> None:
    xp.multiply(x, b, out=x)
    xp.tanh(x, out=x)
    xp.multiply(x, a, out=x)


def _hard_sigmoid(xp: Any, x: Any, a: float, b: float) -> None:
    _affine(xp, x, a, b)
    xp.maximum(x, 0, out=x)
    xp.minimum(x, 1, out=x)


def _elu(xp: Any, x: Any, a: float, b: float) -> None:
    xp.multiply(xp.expm1(xp.minimum(x, 0)), a, out=x, where=x < 0)


def _softsign(xp: Any, x: Any, a: float, b: float) -> None:
    xp.divide(x, 1 + xp.abs(x), out=x)


def _softplus(xp: Any, x: Any, a: float, b: float) -> None:
    xp.logaddexp(x, 0, out=x)


#: Name to function and the defaults of its two numbers.
ACTIVATIONS: dict[str, tuple[Callable[[Any, Any, float, float], None], float, float]] = {
    "sigmoid": (_sigmoid, 0, 0), "tanh": (_tanh, 0, 0), "relu": (_relu, 0, 0),
    "affine": (_affine, 1, 0), "leakyrelu": (_leaky, 0.01, 0),
    "thresholdedrelu": (_thresholded, 1, 0), "scaledtanh": (_scaled_tanh, 1, 1),
    "hardsigmoid": (_hard_sigmoid, 0.2, 0.5), "elu": (_elu, 1, 0), "softsign": (_softsign, 0, 0),
    "softplus": (_softplus, 0, 0),
}  # fmt: skip
