"""Convolution over 1 to 3 spatial axes, grouped and dilated.

How the CPU does it stands in `conv_bind`; on CUDA it is one kernel, ``conv.cu``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.conv_bind import bind_conv, conv_scratch, nothing_more
from asyncnet_gpu.ops.conv_kernel import conv_launches
from asyncnet_gpu.ops.conv_shape import conv_shape
from asyncnet_gpu.ops.strided import nothing
from asyncnet_gpu.ops.windows import PADS_DOC, STEPS_DOC, WINDOW_ATTRS
from asyncnet_gpu.specs import TensorSpec, spec


def _make_infer(where: str, n_spatial: int | None) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        dtype = same_dtype(ins, where=where)
        shape = conv_shape(ins, attrs, where=where, n_spatial=n_spatial)
        return (TensorSpec((shape.n, shape.groups * shape.m, *shape.window.out), dtype),)

    return infer


def _make_scratch(where: str, n_spatial: int | None) -> Callable[[Specs, Specs, Attrs, str], Specs]:
    def scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
        if device_kind != "cpu" or not outs[0].size:
            return ()  # on CUDA the kernel keeps its columns in shared memory
        shape = conv_shape(ins, attrs, where=where, n_spatial=n_spatial)
        return conv_scratch(shape, ins[0].dtype)

    return scratch


#: Operators that a convolution can end with: one NumPy function or two, for any strides.
FINISHERS = frozenset({"relu", "clip"})

_N_SPATIAL = {"conv": None, "conv1d": 1, "conv2d": 2, "conv3d": 3}


def _make_bind(
    where: str, n_spatial: int | None,
    after: Callable[[Any, Any], Sequence[Launch]] | None = None,
) -> Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]:  # fmt: skip
    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        (out,) = outs
        if not out.size:
            return nothing
        shape = conv_shape(ins, attrs, where=where, n_spatial=n_spatial)
        if not scratch:
            # A CUDA node whose layout has no kernel brings its own temporaries, once.
            wanted = conv_scratch(shape, out.dtype)
            scratch = [xp.empty(s.shape, s.dtype) for s in wanted]
        finish = nothing_more if after is None else partial(after, xp)
        return bind_conv(xp, ins, out, shape, scratch, finish)

    return bind


def _finishing(op: Op, attrs: Attrs) -> Callable[[Any, Any], Sequence[Launch]]:
    """Return what carries out an elementwise operator in place on a block of an output."""
    return lambda xp, block: [op.bind(xp, [block], [block], attrs, ())]


def finished_conv(conv: Op, op: Op, attrs: Attrs) -> Op:
    """Return a convolution that ends with `op` (of `FINISHERS`), block by block.

    Its kind is that of both, and it has the attributes of the convolution.
    """
    n_spatial = _N_SPATIAL[conv.name]
    reference = conv.reference
    return replace(
        conv,
        kind=conv.kind + op.kind,
        bind=_make_bind(conv.name, n_spatial, _finishing(op, attrs)),
        reference=lambda ins, own: op.reference(reference(ins, own), attrs),
        kernel=None,
    )


def _make_kernel(
    where: str, n_spatial: int | None
) -> Callable[[Arrays, Arrays, Attrs, Arrays], Sequence[KernelLaunch] | None]:
    def kernel(
        ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        if not outs[0].size:
            return ()
        return conv_launches(ins, outs[0], conv_shape(ins, attrs, where=where, n_spatial=n_spatial))

    return kernel


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x, w = (np.asarray(a, np.float64) for a in ins[:2])
    shape = conv_shape([x, w], attrs, where="conv", n_spatial=None)
    window = shape.window
    border = [(b, e + s * k) for b, e, s, k in zip(
        window.begin, window.end, window.strides, window.kernel, strict=True)]  # fmt: skip
    x = np.pad(x, [(0, 0), (0, 0), *border])
    out = np.zeros((shape.n, shape.groups * shape.m, *window.out))
    for place in np.ndindex(out.shape):
        image, channel, *position = place
        group = channel // shape.m
        cut = [
            slice(p * s, p * s + (k - 1) * d + 1, d)
            for p, s, k, d in zip(
                position, window.strides, window.kernel, window.dilations, strict=True
            )
        ]
        read = x[(image, slice(group * shape.c, (group + 1) * shape.c), *cut)]
        out[place] = (read * w[channel]).sum()
    if len(ins) > 2:
        out += np.asarray(ins[2], np.float64)[(slice(None),) + (None,) * len(window.out)]
    return (out,)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    per_output = math.prod(ins[1].shape[1:])
    moved = sum(s.nbytes for s in (*ins, *outs))
    return Cost(2.0 * outs[0].size * per_output, float(moved))


def _f16(*shape: int) -> TensorSpec:
    return spec(shape, "float16")


# Sums of up to 300 products of standard normals: size sqrt(300), error below 300 roundings of it.
_CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-4}
_HALF: dict[str, Any] = {"rtol": 2e-3, "atol": 2e-2}

_CASES_1D = (
    OpCase("1d", (f32(2, 3, 10), f32(4, 3, 3), f32(4)), {"pads": 1}, **_CLOSE),
    OpCase("1d_causal", (f32(1, 3, 10), f32(4, 3, 3)), {"pads": (4, 0), "dilations": 2}, **_CLOSE),
)
_CASES_2D = (
    OpCase("plain", (f32(2, 3, 6, 7), f32(4, 3, 3, 2)), **_CLOSE),
    OpCase("bias", (f32(2, 3, 6, 7), f32(4, 3, 3, 3), f32(4)), {"pads": 1}, **_CLOSE),
    OpCase(
        "strides",
        (f32(2, 3, 9, 8), f32(5, 3, 3, 3), f32(5)),
        {"strides": 2, "pads": (0, 1, 1, 2)},
        **_CLOSE,
    ),
    OpCase(
        "dilations", (f32(1, 2, 9, 9), f32(3, 2, 3, 3)), {"dilations": (2, 3), "pads": 2}, **_CLOSE
    ),
    OpCase("same", (f32(1, 2, 7, 6), f32(3, 2, 4, 3)), {"strides": 2, "pads": "same"}, **_CLOSE),
    OpCase(
        "same_lower",
        (f32(1, 2, 7, 6), f32(3, 2, 4, 3)),
        {"strides": (1, 2), "pads": "same_lower"},
        **_CLOSE,
    ),
    OpCase("far_strides", (f32(1, 2, 8, 8), f32(3, 2, 1, 2)), {"strides": 3}, **_CLOSE),
    OpCase("pointwise", (f32(2, 5, 4, 6), f32(7, 5, 1, 1), f32(7)), **_CLOSE),
    OpCase("pointwise_grouped", (f32(2, 6, 4, 3), f32(4, 3, 1, 1)), {"groups": 2}, **_CLOSE),
    OpCase(
        "grouped", (f32(2, 6, 5, 5), f32(9, 2, 3, 3), f32(9)), {"groups": 3, "pads": 1}, **_CLOSE
    ),
    OpCase(
        "depthwise", (f32(2, 5, 7, 6), f32(5, 1, 3, 3), f32(5)), {"groups": 5, "pads": 1}, **_CLOSE
    ),
    OpCase(
        "depthwise_strides",
        (f32(2, 5, 7, 6), f32(5, 1, 3, 5)),
        {"groups": 5, "pads": "same", "strides": 2},
        **_CLOSE,
    ),
    OpCase(
        "depth_multiplier",
        (f32(2, 3, 5, 5), f32(6, 1, 3, 3), f32(6)),
        {"groups": 3, "dilations": 2, "pads": 2},
        **_CLOSE,
    ),
    OpCase("mostly_padding", (f32(1, 2, 2, 2), f32(3, 2, 3, 3)), {"pads": 4}, **_CLOSE),
    OpCase(
        "double",
        (spec((1, 2, 5, 5), "float64"), spec((3, 2, 3, 3), "float64")),
        rtol=1e-12,
        atol=1e-12,
    ),
    OpCase("half", (_f16(2, 3, 6, 5), _f16(4, 3, 3, 3), _f16(4)), {"pads": 1}, **_HALF),
    OpCase("half_pointwise", (_f16(2, 3, 6, 5), _f16(4, 3, 1, 1)), **_HALF),
    OpCase("half_depthwise", (_f16(2, 3, 6, 5), _f16(3, 1, 3, 3), _f16(3)), {"groups": 3}, **_HALF),
    OpCase("no_images", (f32(0, 3, 6, 7), f32(4, 3, 3, 3)), rtol=0, atol=0),
    OpCase("many_images", (f32(33, 2, 5, 5), f32(3, 2, 3, 3)), {"pads": 1}, **_CLOSE),
    OpCase("many_rows", (f32(1, 40, 60, 60), f32(2, 40, 3, 3), f32(2)), {"pads": 1}, **_CLOSE),
    OpCase(
        "layer", (f32(1, 32, 28, 28), f32(32, 32, 3, 3), f32(32)), {"pads": 1}, perf=True, **_CLOSE
    ),
)
_CASES_3D = (
    OpCase("3d", (f32(1, 2, 4, 5, 6), f32(3, 2, 2, 3, 3), f32(3)),
           {"pads": (0, 1, 1, 1, 1, 0), "strides": (1, 2, 1)}, **_CLOSE),
    OpCase("3d_depthwise", (f32(1, 2, 4, 5, 6), f32(2, 1, 2, 3, 3)), {"groups": 2}, **_CLOSE),
)  # fmt: skip

_DOC = """Convolve: ``out[n, m, o] = bias[m] + sum_ck w[m, c, k] * x[n, c, stride*o + dilation*k]``.

Positions outside `x` count as 0; with groups an output channel reads the channels of its group.

Parameters
----------
x: (n, c, *spatial) float, {axes}
w: (m, c / groups, *kernel), same dtype
bias: (m,), same dtype, optional
{steps}
{pads}
groups
    Divides c and m; groups = c is depthwise.

Returns
-------
(n, m, *out), same dtype. float16 is summed in float32.

Raises
------
ShapeError
    If channels, groups, bias or window do not fit.
"""


def _conv(name: str, n_spatial: int | None, axes: str, cases: tuple[OpCase, ...]) -> Op:
    return Op(
        name=name,
        kind="Conv" if n_spatial is None else name.title().replace("D", "d"),
        doc=_DOC.format(axes=axes, steps=STEPS_DOC, pads=PADS_DOC),
        n_inputs=(2, 3),
        attrs={**WINDOW_ATTRS, "groups": 1},
        infer=_make_infer(name, n_spatial),
        bind=_make_bind(name, n_spatial),
        kernel=_make_kernel(name, n_spatial),
        reference=_reference,
        scratch=_make_scratch(name, n_spatial),
        cost=_cost,
        dtypes=FLOATS,
        cases=cases,
    )


OPS = (
    _conv("conv", None, "1 to 3 spatial axes", (_CASES_1D[0], _CASES_2D[1], _CASES_3D[0])),
    _conv("conv1d", 1, "1 spatial axis", _CASES_1D),
    _conv("conv2d", 2, "2 spatial axes", _CASES_2D),
    _conv("conv3d", 3, "3 spatial axes", _CASES_3D),
)
