"""Random numbers as a function of a seed and a counter: the same bits on every backend.

The counter is a parameter of the net that ``net.assign_add`` moves on, so that every run draws anew
and the plan orders the draws like any other write of a parameter.

Source: G. Steele, D. Lea and C. Flood, *Fast splittable pseudorandom number generators*, 2014
(SplitMix64); G. Box and M. Muller, *A note on the generation of random normal deviates*, 1958.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    REQUIRED,
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    Op,
    OpCase,
    Specs,
)
from asyncnet_gpu.ops.blocks import working_dtype
from asyncnet_gpu.ops.checks import as_int, as_ints, fail
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, THREADS, grid_for
from asyncnet_gpu.specs import spec

_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _infer(name: str) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        shape = as_ints(attrs["shape"], "shape", where=name)
        as_int(attrs["seed"], "seed", where=name)
        made = spec(shape, attrs["dtype"], where=name)
        if ins[0].shape or made.dtype.name not in FLOATS:
            fail(name, "counter and dtype", expected="a scalar counter and a float dtype",
                 got=f"{ins[0]}, {made.dtype}", remedy="See the operator's help.")  # fmt: skip
        return (made,)

    return infer


def _start(seed: int) -> int:
    """Spread a seed over 64 bits, so that neighbouring seeds start far from each other."""
    return _mixed((seed * _SECOND + _STEP) & _MASK)


def _mixed(z: int) -> int:
    z = ((z ^ (z >> 30)) * _FIRST) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND) & _MASK
    return z ^ (z >> 31)


def _bits(xp: Any, counter: Any, places: Any, size: int, seed: int) -> Any:
    """Return 64 bits for each place: ``size`` of them belong to one count."""
    index = counter.reshape(1) * xp.uint64(max(1, size)) + places
    z = index * xp.uint64(_STEP) + xp.uint64(_start(seed))
    z = (z ^ (z >> xp.uint64(30))) * xp.uint64(_FIRST)
    z = (z ^ (z >> xp.uint64(27))) * xp.uint64(_SECOND)
    return z ^ (z >> xp.uint64(31))


def _unit(xp: Any, bits: Any, dtype: Any) -> Any:
    """Return numbers in [0, 1) from the upper bits: as many as the mantissa has."""
    digits = np.finfo(dtype).nmant + 1
    work = working_dtype(np.dtype(dtype)).type
    return (bits >> xp.uint64(64 - digits)).astype(work) * work(2.0**-digits)


def _bind_uniform(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (counter,), (out,) = ins, outs
    places = xp.arange(out.size, dtype=np.uint64)
    work = working_dtype(out.dtype).type
    low, span = work(attrs["low"]), work(attrs["high"] - attrs["low"])

    def launch() -> None:
        unit = _unit(xp, _bits(xp, counter, places, out.size, attrs["seed"]), out.dtype)
        xp.copyto(out, (low + unit * span).reshape(out.shape), casting="same_kind")

    return launch


def _bind_normal(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (counter,), (out,) = ins, outs
    places = xp.arange(2 * out.size, dtype=np.uint64)
    work = working_dtype(out.dtype).type

    def launch() -> None:
        bits = _bits(xp, counter, places, 2 * out.size, attrs["seed"]).reshape(2, out.size)
        # 1 - u is never 0, so that the logarithm is finite.
        radius = xp.sqrt(work(-2) * xp.log(work(1) - _unit(xp, bits[0], work)))
        made = radius * xp.cos(work(2 * math.pi) * _unit(xp, bits[1], work))
        made = work(attrs["mean"]) + work(attrs["scale"]) * made
        xp.copyto(out, made.reshape(out.shape), casting="same_kind")

    return launch


def _launch(
    name: str, counter: Any, out: Any, attrs: Attrs, at: float, width: float
) -> tuple[KernelLaunch, ...]:
    if not out.size:
        return ()
    work = working_dtype(out.dtype).type
    args = (
        counter, out, np.int64(out.size), np.uint64(_start(attrs["seed"])), work(at), work(width),
    )  # fmt: skip
    entry = f"{name}<{CUDA_NUMBERS[out.dtype.name]}>"
    return (KernelLaunch("random.cu", entry, grid_for(out.size), (THREADS, 1, 1), args),)


def _kernel_uniform(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch]:
    span = attrs["high"] - attrs["low"]
    return _launch("random_uniform", ins[0], outs[0], attrs, attrs["low"], span)


def _kernel_normal(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch]:
    return _launch("random_normal", ins[0], outs[0], attrs, attrs["mean"], attrs["scale"])


def _draws(counter: Any, size: int, attrs: Attrs, dtype: Any) -> list[float]:
    """Return numbers in [0, 1) one by one, in Python's integers."""
    digits, first = np.finfo(dtype).nmant + 1, int(counter) * size
    states = [(first + i) * _STEP + _start(attrs["seed"]) for i in range(size)]
    return [(_mixed(z & _MASK) >> (64 - digits)) * 2.0**-digits for z in states]


def _reference_uniform(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    size = math.prod(attrs["shape"])
    unit = np.array(_draws(ins[0], size, attrs, attrs["dtype"]))
    return ((attrs["low"] + unit * (attrs["high"] - attrs["low"])).reshape(attrs["shape"]),)


def _reference_normal(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    size = math.prod(attrs["shape"])
    unit = _draws(ins[0], 2 * size, attrs, working_dtype(np.dtype(attrs["dtype"])))
    pairs = zip(unit[:size], unit[size:], strict=True)
    made = [math.sqrt(-2 * math.log(1 - u)) * math.cos(2 * math.pi * v) for u, v in pairs]
    return ((attrs["mean"] + attrs["scale"] * np.array(made)).reshape(attrs["shape"]),)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(30.0 * outs[0].size, 40.0 * outs[0].size)


def _doc(what: str, attributes: str) -> str:
    return f"""Draw {what}: a function of seed and counter.

    Parameters
    ----------
    counter: a scalar, uint64
        A parameter of the net; let ``net.assign_add`` count it up after each draw.
    shape, dtype
        Of the result; a float type.
    seed
        Operators of one net that shall draw differently need different seeds.
{attributes}
    """


def _define(
    name: str, what: str, attributes: str, attrs: dict[str, Any], bind: Callable[..., Launch],
    kernel: Callable[..., Sequence[KernelLaunch]], reference: Callable[..., Any],
) -> Op:  # fmt: skip
    def case(label: str, count: int, dtype: str, **more: Any) -> OpCase:
        close = {"float16": 2e-3, "float32": 1e-5}.get(dtype, 1e-12)
        attrs = {"shape": (3, 50), "dtype": dtype, **more}
        return OpCase(label, (np.asarray(count, np.uint64),), attrs, rtol=close, atol=close)

    return Op(
        name=name,
        kind="".join(part.title() for part in name.split("_")),
        doc=_doc(what, attributes),
        n_inputs=(1, 1),
        attrs={"shape": REQUIRED, "dtype": "float32", "seed": 0, **attrs},
        infer=_infer(name),
        bind=bind,
        kernel=kernel,
        reference=reference,
        cost=_cost,
        dtypes=frozenset({"uint64"}),
        cases=(
            case("first", 0, "float32"),
            case("later", 12345, "float64", seed=7),
            case("half", 3, "float16", seed=-1),
            case("far", (1 << 64) - 2, "float32"),
            case("none", 0, "float32", shape=(0, 2)),
        ),
    )


OPS = (
    _define(
        "random_uniform", "numbers evenly from a range",
        "    low, high\n        The range: from low on, below high.",
        {"low": 0.0, "high": 1.0}, _bind_uniform, _kernel_uniform, _reference_uniform,
    ),
    _define(
        "random_normal", "numbers from a normal distribution",
        "    mean, scale\n        Of the distribution.",
        {"mean": 0.0, "scale": 1.0}, _bind_normal, _kernel_normal, _reference_normal,
    ),
)  # fmt: skip
