"""Floats of 4, 8 and 16 bits that no array has: their codes, as unsigned integers, and back.

Sources: bfloat16 as the upper half of a float32; float8_e4m3fn and float8_e5m2 after
P. Micikevicius and others, *FP8 formats for deep learning*, 2022; the fnuz types after B. Noune and
others, *8-bit numerical formats for deep neural networks*, 2022; float4_e2m1fn and float8_e8m0fnu
after the *OCP microscaling formats specification*, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
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
    f32,
)
from asyncnet_gpu.ops.checks import fail, one_of
from asyncnet_gpu.ops.elementwise_kernel import unary_launch
from asyncnet_gpu.specs import TensorSpec, spec

ROUNDINGS = ("nearest", "up", "down")


@dataclass(frozen=True, slots=True)
class Format:
    """Layout of a narrow float: a sign, then exponent and mantissa.

    Attributes
    ----------
    exponent_bits, mantissa_bits, bias
        Value ``2**(e - bias) * (1 + m / 2**mantissa_bits)``, subnormal for e = 0.
    n_finite
        Magnitudes that are finite numbers: the codes below it, without the sign.
    infinity, nan
        Codes; an infinity of None overflows to `nan`.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    n_finite: int
    infinity: int | None
    nan: int

    @property
    def sign(self) -> int:
        """Bit of the sign."""
        return 1 << (self.exponent_bits + self.mantissa_bits)

    @property
    def has_negative_zero(self) -> bool:
        """Whether the code of -0 is not that of NaN; four bits have no NaN but -0 stands in."""
        return self.nan != self.sign or self.sign == 8

    def struct(self, name: str, beyond: int) -> str:
        """Return `Encode` or `Decode` of ``elementwise_functions.cuh`` for this format."""
        sizes = f"{self.exponent_bits}, {self.mantissa_bits}, {self.bias}, {self.n_finite}"
        return f"{name}<{sizes}, {beyond}, {self.nan}>"


FORMATS = {
    "float8_e4m3fn": Format(4, 3, 7, 0x7F, None, 0x7F),
    "float8_e4m3fnuz": Format(4, 3, 8, 0x80, None, 0x80),
    "float8_e5m2": Format(5, 2, 15, 0x7C, 0x7C, 0x7E),
    "float8_e5m2fnuz": Format(5, 2, 16, 0x80, None, 0x80),
    "float4_e2m1fn": Format(2, 1, 1, 8, 7, 8),
}
_NAMES = (*FORMATS, "bfloat16", "float8_e8m0fnu")


def code_dtype(name: str) -> np.dtype[Any]:
    """Return the dtype of a format's codes."""
    return np.dtype(np.uint16 if name == "bfloat16" else np.uint8)


@cache
def _magnitudes(name: str) -> tuple[float, ...]:
    """Return the magnitude of each code without sign, and the one that would come next."""
    f = FORMATS[name]
    found = []
    for code in range(f.n_finite + 1):
        exponent, mantissa = code >> f.mantissa_bits, code & ((1 << f.mantissa_bits) - 1)
        part = mantissa / (1 << f.mantissa_bits)
        whole = 1.0 + part if exponent else 2.0 * part
        found.append(math.ldexp(whole, exponent - f.bias))
    return tuple(found)


@cache
def _table(name: str) -> np.ndarray[Any, Any]:
    """Return the float32 of every code of 8 bits."""
    if name == "float8_e8m0fnu":
        return np.array([*(2.0 ** (code - 127) for code in range(255)), np.nan], np.float32)
    f = FORMATS[name]
    codes = range(2 * f.sign)
    values = []
    for code in codes:
        magnitude = code & (f.sign - 1)
        if magnitude < f.n_finite and (code != f.nan or name == "float4_e2m1fn"):
            values.append(math.copysign(_magnitudes(name)[magnitude], -(code & f.sign) or 1))
        elif magnitude == f.infinity:
            values.append(math.copysign(math.inf, -(code & f.sign) or 1))
        else:
            values.append(math.nan)
    # Codes with bits above the format do not occur; they read as if those were not there.
    return np.array(values * (256 // len(values)), np.float32)


# -- codes to float32 ----------------------------------------------------------------------------


def _check(ins: Specs, attrs: Attrs) -> Specs:
    one_of(attrs["format"], "format", _NAMES, where="decode_float")
    if ins[0].dtype != code_dtype(attrs["format"]):
        fail("decode_float", "codes", expected=code_dtype(attrs["format"]), got=ins[0].dtype,
             remedy="Give the bits as unsigned integers.")  # fmt: skip
    return (TensorSpec(ins[0].shape, np.dtype(np.float32)),)


def _bind_decode(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    codes, out = ins[0], outs[0]
    if attrs["format"] == "bfloat16":
        sixteen = xp.asarray(16, np.uint32)

        def shift() -> None:
            out.view(np.uint32)[...] = xp.left_shift(codes.astype(np.uint32), sixteen)

        return shift
    table = xp.asarray(_table(attrs["format"]))
    return lambda: xp.copyto(out, table[codes])


def _kernel_decode(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    name = attrs["format"]
    function = {"bfloat16": "DecodeUpper", "float8_e8m0fnu": "DecodeExponent"}.get(name)
    if function is None:
        f = FORMATS[name]
        function = f.struct("Decode", 256 if f.infinity is None else f.infinity)
    return unary_launch(function, ins[0], outs[0])


def _decoded(code: int, name: str) -> float:
    """Return the number of one code, as the format defines it."""
    if name == "bfloat16":
        return float(np.array(code << 16, np.uint32).view(np.float32))
    return float(_table(name)[code])


def _reference_decode(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    codes = np.asarray(ins[0])
    found = [_decoded(int(code), attrs["format"]) for code in codes.reshape(-1)]
    return (np.array(found, np.float64).reshape(codes.shape),)


# -- floats to codes -----------------------------------------------------------------------------


def _infer_encode(ins: Specs, attrs: Attrs) -> Specs:
    one_of(attrs["format"], "format", _NAMES, where="encode_float")
    one_of(attrs["rounding"], "rounding", ROUNDINGS, where="encode_float")
    if attrs["rounding"] != "nearest" and attrs["format"] != "float8_e8m0fnu":
        fail("encode_float", f"rounding={attrs['rounding']!r} to {attrs['format']}",
             expected="'nearest'", got=attrs["rounding"],
             remedy="Only powers of two round otherwise.")  # fmt: skip
    return (TensorSpec(ins[0].shape, code_dtype(attrs["format"])),)


def _encode_upper_half(xp: Any, x: Any) -> Any:
    """Round float32 bits to their upper half, halves to even."""
    bits = x.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + (np.uint32(0x7FFF) + odd)) >> np.uint32(16)
    return xp.where(xp.isnan(x), np.uint32(0x7FC0), rounded)


def _encode_exponent(xp: Any, x: Any, attrs: Attrs) -> Any:
    """Return the exponent of float32 numbers, rounded by the mantissa; signs are dropped."""
    bits = x.view(np.uint32)
    exponent, mantissa = (bits >> np.uint32(23)) & np.uint32(0xFF), bits & np.uint32(0x7FFFFF)
    half = np.uint32(0x400000)
    up = xp.zeros(x.shape, bool)
    if attrs["rounding"] == "up":
        up = mantissa > 0
    elif attrs["rounding"] == "nearest":
        up = (mantissa > half) | ((mantissa == half) & (exponent > 0))
    if attrs["saturate"]:
        up = up & (exponent < 0xFE)
    return xp.where(exponent == 0xFF, exponent, exponent + up.astype(np.uint32))


def _beyond(attrs: Attrs) -> int:
    """Return the code of magnitudes that are too large."""
    f = FORMATS[attrs["format"]]
    if attrs["saturate"]:
        return f.n_finite - 1
    return f.nan if f.infinity is None else f.infinity


def _encode_magnitude(xp: Any, x: Any, attrs: Attrs, halves: Any) -> Any:
    """Look magnitudes up between the midpoints of their neighbours, midpoints to even codes."""
    f = FORMATS[attrs["format"]]
    size = xp.absolute(x)
    low, high = xp.searchsorted(halves, size, "left"), xp.searchsorted(halves, size, "right")
    code = xp.where((low == high) | (low % 2 == 0), low, high).astype(np.uint32)
    code = xp.where(code >= f.n_finite, np.uint32(_beyond(attrs)), code)
    negative = xp.signbit(x) & ~xp.isnan(x)
    if not f.has_negative_zero:
        negative &= code > 0
    code = xp.where(negative, code | np.uint32(f.sign), code)
    return xp.where(xp.isnan(x), np.uint32(f.nan), code)


def _bind_encode(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, out, name = ins[0], outs[0], attrs["format"]
    halves = None
    if name in FORMATS:
        values = np.array(_magnitudes(name), np.float32)
        halves = xp.asarray((values[:-1] + values[1:]) / 2)

    def launch() -> None:
        wide = xp.ascontiguousarray(x).astype(np.float32)
        if name == "bfloat16":
            codes = _encode_upper_half(xp, wide)
        elif halves is None:
            codes = _encode_exponent(xp, wide, attrs)
        else:
            codes = _encode_magnitude(xp, wide, attrs, halves)
        xp.copyto(out, codes.reshape(out.shape), casting="unsafe")

    return launch


def _kernel_encode(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    name = attrs["format"]
    if name == "bfloat16":
        function = "EncodeUpper"
    elif name == "float8_e8m0fnu":
        rounding = {"nearest": 0, "up": 1, "down": -1}[attrs["rounding"]]
        function = f"EncodeExponent<{rounding}, {str(bool(attrs['saturate'])).lower()}>"
    else:
        function = FORMATS[name].struct("Encode", _beyond(attrs))
    return unary_launch(function, ins[0], outs[0])


def _nearest(x: float, attrs: Attrs) -> int:
    """Return the code of a number by trying all of them."""
    name = attrs["format"]
    if name == "float8_e8m0fnu":
        if not math.isfinite(x):
            return 0xFF
        power = 0.0 if x == 0 else math.log2(abs(x))
        whole = {"up": math.ceil, "down": math.floor}.get(attrs["rounding"])
        if whole is None:
            low = math.floor(power)
            return 127 + low + (abs(x) >= 1.5 * 2.0**low) if x else 0
        return max(0, min(254, whole(power) + 127)) if x else 0
    top = 0x7F80 if name == "bfloat16" else FORMATS[name].n_finite
    sign = 0x8000 if name == "bfloat16" else FORMATS[name].sign
    infinite = 0x7F80 if name == "bfloat16" else FORMATS[name].infinity
    nan = 0x7FC0 if name == "bfloat16" else FORMATS[name].nan
    if x != x:
        return nan
    known = [_decoded(code, name) for code in range(top)]
    step = known[-1] - known[-2]
    distance = [abs(abs(x) - v) for v in [*known, known[-1] + step]]
    best = min(range(top + 1), key=lambda code: (distance[code], code % 2))
    if best == top or math.isinf(x):
        if not attrs["saturate"] or name == "bfloat16":
            return (nan if infinite is None else infinite) | (sign if x < 0 else 0)
        best = top - 1
    negative = math.copysign(1, x) < 0 and (best or name == "bfloat16"
                                            or FORMATS[name].has_negative_zero)  # fmt: skip
    return best | (sign if negative else 0)


def _reference_encode(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x = np.asarray(ins[0])
    codes = [_nearest(float(value), attrs) for value in x.reshape(-1)]
    return (np.array(codes, code_dtype(attrs["format"])).reshape(x.shape),)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(30.0 * ins[0].size, 8.0 * ins[0].nbytes)


_NUMBERS = np.array(
    [0.0, -0.0, 1e-7, -1e-3, 0.24, 0.25, 0.3, 0.75, -1.1, 1.25, 1.75, 2.5, 3.5, 5.0, -6.5, 17.0,
     24.8, 232.0, 248.0, 464.0, 470.0, -480.0, 60000.0, 61440.0, 1e6, -1e9,
     np.inf, -np.inf, np.nan],
    np.float32,
)  # fmt: skip
_POWERS = np.array([0.25, 0.3, 0.375, 0.4, 1.1, 2.0, 3.0, 1e30, np.inf, np.nan], np.float32)


def _case(name: str, x: Any, **attrs: object) -> OpCase:
    return OpCase(name, (x,), attrs, rtol=0, atol=0)


def _encode_cases() -> tuple[OpCase, ...]:
    cases = []
    for name in FORMATS:
        cases.append(_case(name, _NUMBERS, format=name))
        if name != "float4_e2m1fn":  # which has neither infinity nor NaN
            cases.append(_case(f"{name}_overflows", _NUMBERS, format=name, saturate=False))
    cases += [_case(f"powers_{r}", _POWERS, format="float8_e8m0fnu", rounding=r) for r in ROUNDINGS]
    cases += [
        _case("bfloat16", _NUMBERS[:24], format="bfloat16"),
        _case("float16", spec((3, 5), "float16"), format="float8_e4m3fn"),
        _case("empty", f32(0, 3), format="bfloat16"),
    ]
    return tuple(cases)


OPS = (
    Op(
        name="decode_float",
        kind="DecodeFloat",
        doc="""Turn the codes of a narrow float format into float32; exact.

        Parameters
        ----------
        codes: any shape, uint8 (uint16 for bfloat16)
        format
            "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
            "float8_e8m0fnu" or "float4_e2m1fn" (one code in each byte).

        Returns
        -------
        The same shape, float32.
        """,
        n_inputs=(1, 1),
        attrs={"format": REQUIRED},
        infer=_check,
        bind=_bind_decode,
        kernel=_kernel_decode,
        reference=_reference_decode,
        cost=_cost,
        dtypes=frozenset({"uint8", "uint16"}),
        cases=(
            *(_case(n, np.arange(256, dtype=np.uint8).reshape(16, 16), format=n)
              for n in (*FORMATS, "float8_e8m0fnu")),
            _case("bfloat16", np.array([0, 0x3F80, 0xC040, 0x7F80, 0x7FC0, 1], np.uint16),
                  format="bfloat16"),
        ),
    ),
    Op(
        name="encode_float",
        kind="EncodeFloat",
        doc="""Round floats to a narrow format and return its codes.

        Parameters
        ----------
        x: any shape, float
        format
            See `decode_float`.
        saturate
            What is too large becomes the largest number; otherwise infinity, or NaN where the
            format has none. bfloat16 always overflows to infinity.
        rounding
            "nearest" with halves to even codes; for float8_e8m0fnu also "up" and "down".

        Returns
        -------
        The same shape, uint8 (uint16 for bfloat16).
        """,
        n_inputs=(1, 1),
        attrs={"format": REQUIRED, "saturate": True, "rounding": "nearest"},
        infer=_infer_encode,
        bind=_bind_encode,
        kernel=_kernel_encode,
        reference=_reference_encode,
        cost=_cost,
        dtypes=FLOATS,
        cases=_encode_cases(),
    ),
)  # fmt: skip
