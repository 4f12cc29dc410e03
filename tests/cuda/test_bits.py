"""Operators whose results are bits, not roundings: CUDA gives those of NumPy, for any strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.ops.narrow import FORMATS, ROUNDINGS

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

Array = np.ndarray[Any, Any]
Build = Callable[..., ag.Blob]

SHAPE = (6, 5, 8)
INTEGERS = ("int8", "int32", "int64", "uint8", "uint64")  # 16 bits are promoted as 8 are
WIDEST = ("int8", "uint64")
FLOATS = ("float16", "float32", "float64")

#: Ways to reach (5, 4, 3), or what broadcasts to it, from `SHAPE`.
VIEWS: dict[str, Callable[[ag.AsyncNet, ag.Blob], ag.Blob]] = {
    "transposed": lambda net, x: net.slice(
        net.transpose(x, axes=(1, 2, 0)), starts=(0, 1, 0), ends=(5, 8, 6), axes=(0, 1, 2),
        steps=(1, 2, 2),
    ),
    "backwards": lambda net, x: net.slice(
        net.transpose(x, axes=(1, 0, 2)), starts=(4, 5, 6), ends=(-99, 1, 0), axes=(0, 1, 2),
        steps=(-1, -1, -2),
    ),
    "one_row": lambda net, x: net.slice(x, starts=(2, 3, 1), ends=(3, 4, 4), axes=(0, 1, 2)),
    "one": lambda net, x: net.slice(x, starts=(1, 1, 1), ends=(2, 2, 2), axes=(0, 1, 2)),
}  # fmt: skip


def numbers(dtype: str, seed: int) -> Array:
    """Return numbers of all sizes: random bits, and the ends of the range and around zero.

    But no floats so small that float32 has no normal number for a result: CuPy has the compiler
    flush those to 0 (-ftz=true).
    """
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    made = np.frombuffer(rng.bytes(240 * kind.itemsize), kind).copy()
    if kind.kind == "f":
        made[np.isnan(made) | (np.abs(made) < 1e-30) & (kind.itemsize > 2)] = 1.5
        ends = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.5, -0.5, 448.0, 1e-8, 6e4]
    else:
        info = np.iinfo(kind)
        ends = [info.min, info.max, 0, 1, 7, info.max // 2, *([-1, -8] if info.min else [])]
    some = rng.permutation(240)[: 8 * len(ends)]
    made[some] = np.resize(np.array(ends).astype(kind), some.size)
    return made.reshape(SHAPE)


def both(build: Callable[[ag.AsyncNet], ag.Blob], given: dict[str, Array]) -> list[Array]:
    """Return the result of NumPy and of CUDA."""
    found = []
    for backend in ("cpu", "cuda"):
        net = ag.AsyncNet("bits")
        net.output(y=build(net))
        with net.compile(backend=backend, mode="serial") as exe:
            found.append(ag.to_numpy(exe.run(given)["y"]))
    return found


def check_bits(build: Callable[[ag.AsyncNet], ag.Blob], given: dict[str, Array]) -> Array:
    on_cpu, on_cuda = both(build, given)
    assert on_cuda.shape == on_cpu.shape
    assert on_cuda.dtype == on_cpu.dtype
    if on_cpu.dtype.kind == "f":
        nan = np.isnan(on_cpu)
        np.testing.assert_array_equal(np.isnan(on_cuda), nan)
        on_cpu, on_cuda = np.where(nan, 0, on_cpu), np.where(nan, 0, on_cuda)
    np.testing.assert_array_equal(
        np.ascontiguousarray(on_cuda).view(f"u{on_cpu.dtype.itemsize}"),
        np.ascontiguousarray(on_cpu).view(f"u{on_cpu.dtype.itemsize}"),
    )
    return on_cpu


BINARY = [
    *((name, d) for name in ("bitwise_and", "bitwise_or", "bitwise_xor") for d in WIDEST),
    *((name, d) for name in ("shift_left", "shift_right") for d in INTEGERS),
    *((name, d) for name in ("mod", "fmod") for d in (*INTEGERS, *FLOATS)),
]


@pytest.mark.parametrize(("name", "dtype"), BINARY)
def test_two_operands(name: str, dtype: str) -> None:
    """Contiguous, strided and broadcast operands of every dtype, as parts of one net."""
    left, right = numbers(dtype, 1), numbers(dtype, 2)
    if name.startswith("shift"):  # also amounts that leave something
        right = np.where(np.arange(240).reshape(SHAPE) % 3 > 0, right % 70, right).astype(dtype)

    def build(net: ag.AsyncNet) -> ag.Blob:
        a, b = net.input("a", SHAPE, dtype), net.input("b", SHAPE, dtype)
        apply: Build = getattr(net, name)
        parts = [net.reshape(apply(a, b), shape=(-1,))]
        for one, other in (
            ("transposed", "backwards"), ("backwards", "one_row"), ("one", "transposed"),
        ):  # fmt: skip
            parts.append(net.reshape(apply(VIEWS[one](net, a), VIEWS[other](net, b)), shape=(-1,)))
        return net.concat(*parts, axis=0)

    assert len(np.unique(check_bits(build, {"a": left, "b": right}))) > 5


ONE: list[tuple[str, str, dict[str, Any]]] = [
    *(("bitwise_not", d, {}) for d in WIDEST),
    *(("triangle", d, {"k": 1, "upper": u}) for d in ("int8", "float16", "float64")
      for u in (True, False)),
    ("bit_cast", "float32", {"dtype": "int32"}),
    ("bit_cast", "int64", {"dtype": "float64"}),
    ("bit_cast", "float16", {"dtype": "uint16"}),
    ("bit_cast", "int8", {"dtype": "uint8"}),
    *(("encode_float", "float32", {"format": f, "saturate": s}) for f in FORMATS
      for s in (True, False)),
    *(("encode_float", d, {"format": "float8_e5m2"}) for d in ("float16", "float64")),
    *(("encode_float", d, {"format": "bfloat16"}) for d in FLOATS),
    *(("encode_float", "float32", {"format": "float8_e8m0fnu", "rounding": r, "saturate": s})
      for r in ("nearest", "up", "down") for s in (True, False)),
    *(("decode_float", "uint8", {"format": f}) for f in (*FORMATS, "float8_e8m0fnu")),
    ("decode_float", "uint16", {"format": "bfloat16"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype", "attrs"),
    ONE,
    ids=lambda v: "-".join(map(str, v.values())) if isinstance(v, dict) else v,
)
def test_one_operand(name: str, dtype: str, attrs: dict[str, Any]) -> None:
    def build(net: ag.AsyncNet) -> ag.Blob:
        x = net.input("x", SHAPE, dtype)
        apply: Build = getattr(net, name)
        parts = [net.reshape(apply(x, **attrs), shape=(-1,))]
        for view in VIEWS.values():
            parts.append(net.reshape(apply(view(net, x), **attrs), shape=(-1,)))
        return net.concat(*parts, axis=0)

    assert len(np.unique(check_bits(build, {"x": numbers(dtype, 3)}))) > 3


def neighbours(name: str) -> Array:
    """Return all numbers of a format, the midpoints between them, and what lies beside these."""
    net = ag.AsyncNet("codes")
    x = net.input("x", (256,), "uint8")
    net.output(y=net.decode_float(x, format=name))
    with net.compile(backend="cpu") as exe:
        known = exe.run(x=np.arange(256, dtype=np.uint8))["y"]
    known = np.unique(known[np.isfinite(known)]).astype(np.float32)
    known = np.append(known, [2 * known[-1] - known[-2], 3.4e38]).astype(np.float32)
    middle = (known[1:] / 2 + known[:-1] / 2).astype(np.float32)
    some = np.concatenate([known, middle])
    down, up = np.nextafter(some, np.float32(-np.inf)), np.nextafter(some, np.float32(np.inf))
    return np.concatenate([some, down, up, [-0.0, 1e-45]]).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "rounding"),
    [*((name, "nearest") for name in FORMATS), *(("float8_e8m0fnu", r) for r in ROUNDINGS)],
)
@pytest.mark.parametrize("saturate", [True, False])
def test_rounding_beside_every_midpoint(name: str, rounding: str, saturate: bool) -> None:
    given = neighbours(name)

    def build(net: ag.AsyncNet) -> ag.Blob:
        x = net.input("x", given.shape, "float32")
        return net.encode_float(x, format=name, saturate=saturate, rounding=rounding)

    check_bits(build, {"x": given})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [0, 1, 977, (1 << 64) - 1])
def test_uniform_draws(dtype: str, count: int) -> None:
    counter = np.array(count, np.uint64)

    def build(net: ag.AsyncNet) -> ag.Blob:
        c = net.input("c", (), "uint64")
        parts = [
            net.random_uniform(c, shape=(401,), dtype=dtype, seed=s, low=low, high=high)
            for s, low, high in ((0, 0.0, 1.0), (-3, -1.7, 0.3), (1 << 70, 0.1, 1e4))
        ]
        return net.concat(*parts, axis=0)

    check_bits(build, {"c": counter})


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal_draws(dtype: str) -> None:
    def build(net: ag.AsyncNet) -> ag.Blob:
        c = net.input("c", (), "uint64")
        return net.random_normal(c, shape=(7, 401), dtype=dtype, seed=5, mean=-2.0, scale=3.0)

    on_cpu, on_cuda = both(build, {"c": np.array(41, np.uint64)})
    close = {"float16": 2e-3, "float32": 2e-5, "float64": 1e-13}[dtype]
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=close, atol=close)
    assert abs(float(on_cuda.astype(np.float64).std()) - 3) < 0.2


@pytest.mark.parametrize("mode", ["serial", "graph"])
def test_the_counter_is_read_in_every_run(mode: str) -> None:
    """The draw of a run is that of the counter as it is then, also in a captured graph."""
    net = ag.AsyncNet("draws")
    counter = net.parameter("counter", np.zeros((), np.uint64))
    net.output(y=net.random_uniform(counter, shape=(64,)))
    net.assign_add(counter, net.constant(np.ones((), np.uint64)))
    with net.compile(backend="cuda", mode=mode) as exe:
        drawn = [ag.to_numpy(exe.run()["y"]) for _ in range(3)]
    assert len({d.tobytes() for d in drawn}) == 3


@pytest.mark.parametrize("name", ["reduce_sum", "reduce_prod", "reduce_mean", "reduce_log_sum_exp"])
@pytest.mark.parametrize("shape", [(3, 0), (0, 0, 2), (20, 0, 40)])
def test_reductions_of_nothing(name: str, shape: tuple[int, ...]) -> None:
    def build(net: ag.AsyncNet) -> ag.Blob:
        apply: Build = getattr(net, name)
        return apply(net.input("x", shape, "float32"), axes=(1,))

    check_bits(build, {"x": np.zeros(shape, np.float32)})
