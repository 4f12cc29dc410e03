"""B&S of the GrCUDA suite: the Black-Scholes price of ten independent options, float64.

One node for each stock, as the suite has one kernel for each. The node is the user's own function,
the same for us and for all rivals; on the CPU it works through blocks that stay in cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import asyncnet_gpu as ag

from .workload import Workload, scaled, uniform

N_STOCKS = 10
RATE, VOLATILITY, YEARS, STRIKE = 0.08, 0.3, 1.0, 60.0
_BLOCK = 1 << 17  # steps shorter than a thread takes to wake up do not overlap
# Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17.
_NORMAL = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)


def _normal_below(xp: Any, d: Any) -> Any:
    """Standard normal distribution function; error below 8e-8."""
    k = xp.abs(d)
    k *= 0.2316419
    k += 1.0
    xp.divide(1.0, k, out=k)
    total = k * _NORMAL[-1]
    for c in _NORMAL[-2::-1]:
        total += c
        total *= k
    bell = xp.square(d)
    bell *= -0.5
    xp.exp(bell, out=bell)
    bell *= 1 / math.sqrt(2 * math.pi)
    total *= bell
    return xp.where(d > 0, 1.0 - total, total)


def _price(xp: Any, x: Any, out: Any) -> None:
    spread = VOLATILITY * math.sqrt(YEARS)
    d = xp.log(x)
    d += (RATE + 0.5 * VOLATILITY**2) * YEARS - math.log(STRIKE)
    d /= spread
    xp.multiply(x, _normal_below(xp, d), out=out)
    d -= spread
    later = _normal_below(xp, d)
    later *= STRIKE * math.exp(-RATE * YEARS)
    out -= later


def price(xp: Any, x: Any, out: Any) -> None:
    """Write the prices of call options on stocks at `x` into `out`."""
    step = _BLOCK if xp.__name__ == "numpy" else x.size
    for start in range(0, x.size, step):
        _price(xp, x[start : start + step], out[start : start + step])


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    prices = {}
    for i in range(N_STOCKS):
        out = xp.empty_like(a[f"x{i}"])
        price(xp, a[f"x{i}"], out)
        prices[f"price{i}"] = out
    return prices


def build(scale: float = 1.0) -> Workload:
    n = scaled(150_000, scale)
    net = ag.AsyncNet("B&S")
    inputs = {f"x{i}": uniform(i, n, low=50, high=70, dtype="float64") for i in range(N_STOCKS)}
    for i in range(N_STOCKS):
        x = net.input(f"x{i}", (n,), "float64")
        net.output(net.call(price, x, shape=(n,), dtype="float64", name=f"price{i}"))
    return Workload(
        "B&S", net, inputs, plain, hand=tuple(f"price{i}" for i in range(1, N_STOCKS)),
        rtol=1e-10, atol=1e-10, sizes=f"{N_STOCKS} stocks of {n:,} float64",
    )  # fmt: skip
