"""Discrete Fourier transform along an axis; complex numbers are pairs on the last axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
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
from asyncnet_gpu.ops.checks import as_int, fail
from asyncnet_gpu.ops.elementwise_kernel import CUDA_TYPES
from asyncnet_gpu.ops.reduction_kernel import layouts
from asyncnet_gpu.ops.strided import THREADS, grid_for
from asyncnet_gpu.specs import TensorSpec, normal_axis

#: Longer transforms are left to cuFFT.
MAX_KERNEL_LENGTH = 2048

#: The struct `Transform` of ``fourier.cu``.
_TRANSFORM = np.dtype(
    [
        *((name, np.int64) for name in ("size", "rows", "inner", "given", "length", "wanted")),
        ("step", np.int64),
        ("part", np.int64),
        ("scale", np.float64),
        ("sign", np.float64),
    ],
    align=True,
)


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    x = ins[0]
    if x.ndim < 2 or x.shape[-1] not in (1, 2):
        fail("dft", "input", expected="a last axis of 1 (real) or 2 (complex)", got=x,
             remedy="Add an axis.")  # fmt: skip
    axis = normal_axis(attrs["axis"], x.ndim - 1, where="dft")
    length = x.shape[axis] if attrs["length"] is None else as_int(attrs["length"], "length",
                                                                  where="dft")  # fmt: skip
    inverse_real = attrs["inverse"] and attrs["onesided"]
    if inverse_real and attrs["length"] is None:
        length = 2 * (x.shape[axis] - 1)
    if length < 1 or (attrs["onesided"] and not attrs["inverse"] and x.shape[-1] != 1):
        fail("dft", f"length={length}, onesided={attrs['onesided']}",
             expected="a length of at least 1, and real numbers when onesided", got=x,
             remedy="Half a spectrum is enough for real numbers only.")  # fmt: skip
    half = attrs["onesided"] and not attrs["inverse"]
    shape = [*x.shape[:-1], 1 if inverse_real else 2]
    shape[axis] = length // 2 + 1 if half else length
    return (TensorSpec(tuple(shape), x.dtype),)


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, out, axis = ins[0], outs[0], attrs["axis"] % (ins[0].ndim - 1)
    real, n = x.shape[-1] == 1, attrs["length"]
    if attrs["inverse"] and attrs["onesided"]:
        n = out.shape[axis]
        return lambda: xp.copyto(
            out[..., 0], xp.fft.irfft(x[..., 0] + 1j * x[..., 1], n, axis), casting="unsafe"
        )

    def launch() -> None:
        values = x[..., 0] if real else x[..., 0] + 1j * x[..., 1]
        if attrs["onesided"]:
            made = xp.fft.rfft(values, n, axis)
        else:
            made = (xp.fft.ifft if attrs["inverse"] else xp.fft.fft)(values, n, axis)
        xp.copyto(out[..., 0], made.real, casting="unsafe")
        xp.copyto(out[..., 1], made.imag, casting="unsafe")

    return launch


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x,), (out,) = ins, outs
    axis = attrs["axis"] % (x.ndim - 1)
    mirrored = bool(attrs["inverse"] and attrs["onesided"])
    length = out.shape[axis] if mirrored else attrs["length"] or x.shape[axis]
    found = layouts(x[..., 0], (axis,))
    if found is None or length > MAX_KERNEL_LENGTH:
        return None
    if not out.size:
        return ()
    transform = np.zeros((), _TRANSFORM)
    transform["size"] = out.size // out.shape[-1]
    transform["inner"] = math.prod(x.shape[axis + 1 : -1])
    transform["rows"] = transform["size"] // out.shape[axis]
    transform["given"] = min(length // 2 + 1 if mirrored else length, x.shape[axis])
    transform["length"], transform["wanted"] = length, out.shape[axis]
    item = x.dtype.itemsize
    transform["step"] = x.strides[axis] // item
    transform["part"] = x.strides[-1] // item if x.shape[-1] == 2 else 0
    transform["scale"] = 1 / length if attrs["inverse"] else 1
    transform["sign"] = 1 if attrs["inverse"] else -1
    entry = f"dft<{CUDA_TYPES[x.dtype.name]}, {str(mirrored).lower()}>"
    args = (x, out, found[0], transform)
    grid = grid_for(int(transform["size"]))
    return (KernelLaunch("fourier.cu", entry, grid, (THREADS, 1, 1), args),)


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    """Multiply by the matrix of the transform."""
    x = np.asarray(ins[0], np.float64)
    axis = attrs["axis"] % (x.ndim - 1)
    values = np.moveaxis(x[..., 0] + (1j * x[..., 1] if x.shape[-1] == 2 else 0), axis, -1)
    mirrored = attrs["inverse"] and attrs["onesided"]
    length = attrs["length"] or (2 * (values.shape[-1] - 1) if mirrored else values.shape[-1])
    if mirrored:  # the other half of the spectrum is the mirror image
        half = values[..., : length // 2 + 1]
        values = np.concatenate([half, np.conj(half[..., 1 : (length + 1) // 2][..., ::-1])], -1)
    padded = np.zeros((*values.shape[:-1], length), complex)
    used = min(length, values.shape[-1])
    padded[..., :used] = values[..., :used]
    turns = np.outer(np.arange(length), np.arange(length)) / length
    sign = 2j if attrs["inverse"] else -2j
    made = padded @ np.exp(sign * np.pi * turns) / (length if attrs["inverse"] else 1)
    if attrs["onesided"] and not attrs["inverse"]:
        made = made[..., : length // 2 + 1]
    made = np.moveaxis(made, -1, axis)
    return (np.stack([made.real] if mirrored else [made.real, made.imag], -1),)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    size = max(2, outs[0].size)
    return Cost(5.0 * size * np.log2(size), 6.0 * (ins[0].nbytes + outs[0].nbytes))


_CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}

OPS = (
    Op(
        name="dft",
        kind="DFT",
        doc="""Compute the discrete Fourier transform along an axis.

        Parameters
        ----------
        x: shape (..., 1) real or (..., 2) complex, float
        axis
            Not the last one.
        length
            Cut or pad with zeros to this; None takes the axis as it is.
        inverse
            The inverse transform, divided by the length.
        onesided
            Give (or, for the inverse, take) the first half of the spectrum of real numbers.

        Returns
        -------
        Shape (..., 2), or (..., 1) for an inverse that is onesided.
        """,
        n_inputs=(1, 1),
        attrs={"axis": -2, "length": None, "inverse": False, "onesided": False},
        infer=_infer,
        bind=_bind,
        reference=_reference,
        kernel=_kernel,
        cost=_cost,
        dtypes=frozenset({"float32", "float64"}),
        cases=(
            OpCase("real", (f32(2, 9, 1),), {"axis": 1}, **_CLOSE),
            OpCase("complex", (f32(4, 8, 3, 2),), {"axis": 1, "length": 6}, **_CLOSE),
            OpCase("onesided", (f32(2, 8, 1),), {"axis": 1, "onesided": True}, **_CLOSE),
            OpCase(
                "back", (f32(2, 5, 3, 2),), {"axis": 1, "onesided": True, "inverse": True}, **_CLOSE
            ),
            OpCase(
                "back_odd",
                (f32(2, 5, 2),),
                {"axis": 1, "onesided": True, "inverse": True, "length": 9},
                **_CLOSE,
            ),
            OpCase("padded", (f32(2, 5, 1),), {"axis": 1, "length": 8}, **_CLOSE),
            OpCase("inverse", (f32(2, 7, 2),), {"axis": 1, "inverse": True}, **_CLOSE),
        ),
    ),
)
