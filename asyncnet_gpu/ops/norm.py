"""Normalisation by channels: batch_norm (inference), instance_norm, lrn.

Sources: Ioffe and Szegedy, "Batch normalization", 2015, section 3.1; Ulyanov, Vedaldi and
Lempitsky, "Instance normalization", 2016; Krizhevsky, Sutskever and Hinton, "ImageNet
classification with deep convolutional neural networks", 2012, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.checks import as_int, fail
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, THREADS, grid_for, launch_all, nothing
from asyncnet_gpu.specs import TensorSpec, spec

_BLOCK_BYTES = 1 << 19

#: The struct `NormLayout` of ``norm.cu``.
NORM_LAYOUT = np.dtype(
    [(name, np.int64) for name in ("planes", "channels", "area")]
    + [(name, np.float64) for name in ("epsilon", "alpha", "beta", "k")]
    + [("before", np.int32), ("after", np.int32)],
    align=True,
)


def _check_channels(ins: Specs, names: Sequence[str], *, least: int, where: str) -> Specs:
    """Check x (n, c, ...) and its per-channel operands; return the output's spec."""
    same_dtype(ins, where=where)
    x = ins[0]
    if x.ndim < least:
        fail(where, f"input has {x.ndim} axes", expected=f"at least {least}: (n, c, ...)",
             got=x.shape, remedy="Use net.unsqueeze or net.reshape.")  # fmt: skip
    for name, operand in zip(names, ins[1:], strict=True):
        if operand.shape != x.shape[1:2]:
            fail(where, f"{name} does not fit the channels", expected=x.shape[1:2],
                 got=operand.shape, remedy="Give one number for each channel.")  # fmt: skip
    return (x,)


def _work_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _channel_blocks(x: Any, item: int) -> list[tuple[int, slice]]:
    """Return images and blocks of channels that stay in the second-level cache over two passes."""
    area = math.prod(x.shape[2:])
    size = max(1, min(x.shape[1], _BLOCK_BYTES // max(1, area * item)))
    return [
        (image, slice(first, min(first + size, x.shape[1])))
        for image in range(x.shape[0])
        for first in range(0, x.shape[1], size)
    ]


def _columns(array: Any, ndim: int) -> Any:
    """Give per-channel numbers the axes of a block (c, ...)."""
    return array[(slice(None),) + (None,) * (ndim - 2)]


def _launch(
    name: str, ins: Arrays, out: Any, grid: tuple[int, int, int], **fields: float
) -> Sequence[KernelLaunch] | None:
    if not all(operand.flags.c_contiguous for operand in ins):
        return None
    layout = np.zeros((), NORM_LAYOUT)
    shape = out.shape
    layout["planes"], layout["channels"] = shape[0] * shape[1], shape[1]
    layout["area"] = math.prod(shape[2:])
    for field, value in fields.items():
        layout[field] = value
    entry = f"{name}<{CUDA_NUMBERS[out.dtype.name]}>"
    return (KernelLaunch("norm.cu", entry, grid, (THREADS, 1, 1), (*ins, out, layout)),)


# -- batch_norm ------------------------------------------------------------------------------


def _infer_batch(ins: Specs, attrs: Attrs) -> Specs:
    return _check_channels(ins, ("scale", "bias", "mean", "var"), least=2, where="batch_norm")


def _scratch_batch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    # Factor and shift of each channel: parameters may change between runs, so in every launch.
    numbers = TensorSpec(ins[1].shape, _work_dtype(ins[0].dtype))
    return (numbers, numbers)


def _bind_batch(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x, scale, bias, mean, var), (out,), (factor, shift) = ins, outs, scratch
    if not out.size:
        return nothing
    steps: list[Launch] = [
        partial(xp.add, var, factor.dtype.type(attrs["epsilon"]), factor),
        partial(xp.sqrt, factor, factor),
        partial(xp.divide, scale, factor, factor),
        partial(xp.multiply, mean, factor, shift),
        partial(xp.subtract, bias, shift, shift),
    ]
    factors, shifts = _columns(factor, x.ndim), _columns(shift, x.ndim)
    blocks = _channel_blocks(x, x.dtype.itemsize) if x.ndim > 2 else []
    if not blocks:
        steps.append(partial(xp.multiply, x, factor, out, casting="same_kind"))
        steps.append(partial(xp.add, out, shift, out, casting="same_kind"))
    for image, part in blocks:
        goal = out[image, part]
        scaled = partial(xp.multiply, x[image, part], factors[part], goal, casting="same_kind")
        steps += [scaled, partial(xp.add, goal, shifts[part], goal, casting="same_kind")]
    return launch_all(steps)


def _kernel_batch(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (out,) = outs
    if not out.size:
        return ()
    return _launch("batch_norm", ins, out, grid_for(out.size), epsilon=attrs["epsilon"])


def _reference_batch(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x, scale, bias, mean, var = (np.asarray(a, np.float64) for a in ins)
    out = np.empty(x.shape)
    for c in range(x.shape[1]):
        deviation = math.sqrt(var[c] + attrs["epsilon"])
        out[:, c] = (x[:, c] - mean[c]) / deviation * scale[c] + bias[c]
    return (out,)


# -- instance_norm ---------------------------------------------------------------------------


def _infer_instance(ins: Specs, attrs: Attrs) -> Specs:
    if 0 in ins[0].shape[2:]:
        fail("instance_norm", "planes are empty", expected="spatial extents of at least 1",
             got=ins[0].shape, remedy="Check the shapes before this node.")  # fmt: skip
    return _check_channels(ins, ("scale", "bias"), least=3, where="instance_norm")


def _scratch_instance(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    x, dtype = ins[0], _work_dtype(ins[0].dtype)
    if device_kind != "cpu" or not outs[0].size:
        return ()
    largest = max(b.stop - b.start for _, b in _channel_blocks(x, dtype.itemsize))
    block = TensorSpec((largest, *x.shape[2:]), dtype)
    numbers = TensorSpec((largest, *(1,) * (x.ndim - 2)), dtype)
    return (block, block, numbers)


def _bind_instance(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x, scale, bias), (out,) = ins, outs
    if not out.size:
        return nothing
    if not scratch:
        specs = tuple([TensorSpec(a.shape, a.dtype) for a in ins])
        wanted = _scratch_instance(specs, specs[:1], attrs, "cpu")
        scratch = [xp.empty(s.shape, s.dtype) for s in wanted]
    steps: list[Launch] = []
    kind = scratch[0].dtype.type
    count, epsilon = kind(math.prod(x.shape[2:])), kind(attrs["epsilon"])
    scales, biases = _columns(scale, x.ndim), _columns(bias, x.ndim)
    for image, part in _channel_blocks(x, scratch[0].dtype.itemsize):
        centred, squares, numbers = (s[: part.stop - part.start] for s in scratch)
        goal, axes = out[image, part], tuple(range(1, x.ndim - 1))
        total = partial(xp.sum, axis=axes, out=numbers, keepdims=True)
        steps += [
            partial(xp.copyto, centred, x[image, part]),
            partial(total, centred),
            partial(xp.divide, numbers, count, numbers),
            partial(xp.subtract, centred, numbers, centred),
            partial(xp.multiply, centred, centred, squares),
            partial(total, squares),
            partial(xp.divide, numbers, count, numbers),
            partial(xp.add, numbers, epsilon, numbers),
            partial(xp.sqrt, numbers, numbers),
            partial(xp.divide, scales[part], numbers, numbers),
            partial(xp.multiply, centred, numbers, centred),
            partial(xp.add, centred, biases[part], goal, casting="same_kind"),
        ]
    return launch_all(steps)


def _kernel_instance(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (out,) = outs
    if not out.size:
        return ()
    grid = (min(out.shape[0] * out.shape[1], 1 << 16), 1, 1)
    return _launch("instance_norm", ins, out, grid, epsilon=attrs["epsilon"])


def _reference_instance(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x, scale, bias = (np.asarray(a, np.float64) for a in ins)
    out = np.empty(x.shape)
    for n, c in np.ndindex(x.shape[:2]):
        plane = x[n, c]
        centred = plane - plane.mean()
        out[n, c] = centred / math.sqrt((centred**2).mean() + attrs["epsilon"]) * scale[c] + bias[c]
    return (out,)


# -- lrn -------------------------------------------------------------------------------------


def _infer_lrn(ins: Specs, attrs: Attrs) -> Specs:
    if as_int(attrs["size"], "size", where="lrn") < 1:
        fail("lrn", f"size={attrs['size']}", expected="at least 1 channel", got=attrs["size"],
             remedy="Give the width of the window.")  # fmt: skip
    return _check_channels(ins, (), least=2, where="lrn")


def _reach(attrs: Attrs) -> tuple[int, int]:
    # An even window reaches one channel further up than down, as in ONNX.
    return (attrs["size"] - 1) // 2, attrs["size"] // 2


def _scratch_lrn(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    image = TensorSpec(ins[0].shape[1:], _work_dtype(ins[0].dtype))
    return (image, image) if device_kind == "cpu" else ()


def _bind_lrn(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x,), (out,) = ins, outs
    if not out.size:
        return nothing
    if not scratch:
        dtype = _work_dtype(x.dtype)
        scratch = [xp.empty(x.shape[1:], dtype), xp.empty(x.shape[1:], dtype)]
    squares, total = scratch
    kind = total.dtype.type
    steps: list[Launch] = []
    before, after = _reach(attrs)
    channels = x.shape[1]
    for image in range(x.shape[0]):
        steps += [
            partial(xp.copyto, total, x[image]),
            partial(xp.multiply, total, total, squares),
            partial(xp.copyto, total, squares),
        ]
        for shift in range(1, min(max(before, after) + 1, channels)):
            low, high = total[: channels - shift], total[shift:]
            if shift <= after:
                steps.append(partial(xp.add, low, squares[shift:], low))
            if shift <= before:
                steps.append(partial(xp.add, high, squares[: channels - shift], high))
        steps += [
            partial(xp.multiply, total, kind(attrs["alpha"] / attrs["size"]), total),
            partial(xp.add, total, kind(attrs["bias"]), total),
            partial(xp.power, total, kind(attrs["beta"]), total),
            partial(xp.divide, x[image], total, out[image], casting="same_kind"),
        ]
    return launch_all(steps)


def _kernel_lrn(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (out,) = outs
    if not out.size:
        return ()
    before, after = _reach(attrs)
    return _launch(
        "lrn", ins, out, grid_for(out.size), alpha=attrs["alpha"] / attrs["size"],
        beta=attrs["beta"], k=attrs["bias"], before=before, after=after,
    )  # fmt: skip


def _reference_lrn(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x = np.asarray(ins[0], np.float64)
    size, channels = attrs["size"], x.shape[1]
    out = np.empty(x.shape)
    for c in range(channels):
        first = max(0, c - math.floor((size - 1) / 2))
        last = min(channels - 1, c + math.ceil((size - 1) / 2))
        total = (x[:, first : last + 1] ** 2).sum(1)
        out[:, c] = x[:, c] / (attrs["bias"] + attrs["alpha"] / size * total) ** attrs["beta"]
    return (out,)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(2.0 * outs[0].size, float(ins[0].nbytes + outs[0].nbytes))


def _cost_wide(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(12.0 * outs[0].size, float(ins[0].nbytes + outs[0].nbytes))


def _numbers(n: int, dtype: str = "float32", low: float = 0.5) -> np.ndarray[Any, Any]:
    return (low + np.arange(n) / n).astype(dtype)


def _batch_inputs(*shape: int, dtype: str = "float32") -> tuple[Any, ...]:
    c = shape[1]
    x = spec(shape, dtype)
    return (x, _numbers(c, dtype), _numbers(c, dtype), _numbers(c, dtype, -1), _numbers(c, dtype))


def _instance_inputs(*shape: int, dtype: str = "float32") -> tuple[Any, ...]:
    return (spec(shape, dtype), _numbers(shape[1], dtype), _numbers(shape[1], dtype, -1))


_HALF: dict[str, Any] = {"rtol": 2e-3, "atol": 4e-3}
_DOUBLE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
_CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}

OPS = (
    Op(
        name="batch_norm",
        kind="BatchNormalization",
        doc="""Normalise by given statistics: ``(x - mean) * scale / sqrt(var + epsilon) + bias``.

        Parameters
        ----------
        x: (n, c, ...) float
        scale, bias, mean, var: (c,), same dtype
        epsilon
            Added to the variance.

        Returns
        -------
        Like `x`. float16 is computed in float32.

        Notes
        -----
        Inference only: the statistics are inputs and stay as they are. Ioffe and Szegedy, 2015.
        """,
        n_inputs=(5, 5),
        attrs={"epsilon": 1e-5},
        infer=_infer_batch,
        bind=_bind_batch,
        kernel=_kernel_batch,
        reference=_reference_batch,
        scratch=_scratch_batch,
        inplace=(0,),
        cost=_cost,
        dtypes=FLOATS,
        cases=(
            OpCase("images", _batch_inputs(2, 3, 4, 5), **_CLOSE),
            OpCase("vectors", _batch_inputs(4, 3), {"epsilon": 1e-3}, **_CLOSE),
            OpCase("1d", _batch_inputs(2, 3, 7), **_CLOSE),
            OpCase("double", _batch_inputs(2, 3, 4, 5, dtype="float64"), **_DOUBLE),
            OpCase("half", _batch_inputs(2, 3, 4, 5, dtype="float16"), **_HALF),
            OpCase("no_images", _batch_inputs(0, 3, 4, 5), **_CLOSE),
            OpCase("layer", _batch_inputs(1, 64, 56, 56), perf=True, **_CLOSE),
        ),
    ),
    Op(
        name="instance_norm",
        kind="InstanceNormalization",
        doc="""Normalise each plane by its own mean and variance, then scale and shift channels.

        Parameters
        ----------
        x: (n, c, *spatial) float
        scale, bias: (c,), same dtype
        epsilon
            Added to the (biased) variance.

        Returns
        -------
        Like `x`. float16 is computed in float32.

        Notes
        -----
        Ulyanov, Vedaldi and Lempitsky, 2016. Two passes: mean first, then variance about it.
        """,
        n_inputs=(3, 3),
        attrs={"epsilon": 1e-5},
        infer=_infer_instance,
        bind=_bind_instance,
        kernel=_kernel_instance,
        reference=_reference_instance,
        scratch=_scratch_instance,
        inplace=(0,),
        cost=_cost_wide,
        dtypes=FLOATS,
        onnx={"InstanceNormalization": OnnxMapping(since=6)},
        cases=(
            OpCase("images", _instance_inputs(2, 3, 4, 5), **_CLOSE),
            OpCase("1d", _instance_inputs(2, 3, 300), {"epsilon": 1e-2}, **_CLOSE),
            OpCase("double", _instance_inputs(2, 3, 4, 5, dtype="float64"), **_DOUBLE),
            OpCase("half", _instance_inputs(2, 3, 4, 5, dtype="float16"), **_HALF),
            OpCase("blocks", _instance_inputs(1, 40, 64, 64), **_CLOSE),
        ),
    ),
    Op(
        name="lrn",
        kind="LRN",
        doc="""Local response normalisation across channels.

        ``x / (bias + alpha / size * sum of x^2 over size channels) ** beta``

        Parameters
        ----------
        x: (n, c, ...) float
        size
            Channels in the window about each; an even window reaches one further up.
        alpha, beta, bias
            As in the formula.

        Returns
        -------
        Like `x`. float16 is computed in float32.

        Notes
        -----
        Krizhevsky, Sutskever and Hinton, 2012, section 3.3; attributes as in ONNX.
        """,
        n_inputs=(1, 1),
        attrs={"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0},
        infer=_infer_lrn,
        bind=_bind_lrn,
        kernel=_kernel_lrn,
        reference=_reference_lrn,
        scratch=_scratch_lrn,
        cost=_cost_wide,
        dtypes=FLOATS,
        onnx={"LRN": OnnxMapping()},
        cases=(
            OpCase("odd", (f32(2, 7, 3, 4),), {"size": 3, "alpha": 0.5}, **_CLOSE),
            OpCase("even", (f32(2, 7, 3),), {"size": 4, "alpha": 0.5, "bias": 2.0}, **_CLOSE),
            OpCase("wider_than_channels", (f32(1, 3, 4),), {"size": 9, "alpha": 1.0}, **_CLOSE),
            OpCase("double", (spec((1, 3, 4), "float64"),), {"alpha": 1.0}, **_DOUBLE),
            OpCase("half", (spec((1, 3, 4), "float16"),), {"alpha": 1.0}, **_HALF),
        ),
    ),
)  # fmt: skip
