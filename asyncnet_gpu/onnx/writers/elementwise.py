"""Elementwise operators: other names, limits as inputs, what ONNX makes of two nodes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from asyncnet_gpu.onnx.export import Writer


def _renamed(op_type: str) -> Callable[[Writer], None]:
    return lambda w: w.node(op_type, w.inputs, w.outputs)


def _shift(direction: str) -> Callable[[Writer], None]:
    return lambda w: w.node("BitShift", w.inputs, w.outputs, direction=direction)


def _cast(w: Writer) -> None:
    w.node("Cast", w.inputs, w.outputs, to=w.element_type(w.attrs["dtype"]))


def _bit_cast(w: Writer) -> None:
    w.node("BitCast", w.inputs, w.outputs, to=w.element_type(w.attrs["dtype"]))


def _clip(w: Writer) -> None:
    dtype = w.ins[0].dtype
    limits = [
        "" if math.isinf(w.attrs[key]) else w.constant(np.asarray(w.attrs[key], dtype), key)
        for key in ("low", "high")
    ]
    w.node("Clip", [*w.inputs, *limits], w.outputs)


def _is_inf(w: Writer) -> None:
    w.node("IsInf", w.inputs, w.outputs, detect_positive=int(w.attrs["positive"]),
           detect_negative=int(w.attrs["negative"]))  # fmt: skip


def _not_equal(w: Writer) -> None:
    same = w.step("Equal", w.inputs, "bool")
    w.node("Not", [same], w.outputs)


def _mod(w: Writer) -> None:
    if w.ins[0].dtype.kind == "f":
        w.fail("floor-modulo of floats",
               "Before operator set 28 ONNX has it for integers only; use net.fmod.")  # fmt: skip
    w.node("Mod", w.inputs, w.outputs)


def _rsqrt(w: Writer) -> None:
    w.node("Reciprocal", [w.step("Sqrt", w.inputs, w.ins[0].dtype)], w.outputs)


def _square(w: Writer) -> None:
    w.node("Mul", [w.inputs[0], w.inputs[0]], w.outputs)


def _silu(w: Writer) -> None:
    x, dtype = w.inputs[0], w.ins[0].dtype
    inner = x
    if w.attrs["alpha"] != 1:
        alpha = w.constant(np.asarray(w.attrs["alpha"], dtype), "alpha")
        inner = w.step("Mul", [x, alpha], dtype)
    w.node("Mul", [x, w.step("Sigmoid", [inner], dtype)], w.outputs)


def _floor_div(w: Writer) -> None:
    if w.ins[0].dtype.kind == "i":
        w.fail("floor-division of integers", "ONNX divides them towards 0; use net.div.")
    if w.ins[0].dtype.kind == "u":
        w.node("Div", w.inputs, w.outputs)
        return
    w.node("Floor", [w.step("Div", w.inputs, w.ins[0].dtype)], w.outputs)


WRITERS = {
    "bit_cast": _bit_cast,
    "cast": _cast,
    "clip": _clip,
    "copy": _renamed("Identity"),
    "floor_div": _floor_div,
    "fmod": lambda w: w.node("Mod", w.inputs, w.outputs, fmod=1),
    "isinf": _is_inf,
    "maximum": _renamed("Max"),
    "minimum": _renamed("Min"),
    "mod": _mod,
    "not_equal": _not_equal,
    "pow": _renamed("Pow"),
    "prelu": _renamed("PRelu"),
    "rsqrt": _rsqrt,
    "shift_left": _shift("LEFT"),
    "shift_right": _shift("RIGHT"),
    "silu": _silu,
    "square": _square,
}
