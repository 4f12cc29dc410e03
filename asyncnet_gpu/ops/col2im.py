"""Add overlapping blocks back into an image: the transpose of taking them out of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
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
from asyncnet_gpu.ops.blocks import working_dtype
from asyncnet_gpu.ops.checks import as_ints, fail
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, MAX_AXES, THREADS, grid_for, launch_all
from asyncnet_gpu.specs import TensorSpec, spec

_PER_AXIS = ("image", "block", "stride", "dilation", "begin", "counts")

#: The struct `Blocks` of ``col2im.cu``: strides in elements.
_BLOCKS = np.dtype(
    [
        (name, np.int64)
        for name in ("size", "channels", "image_stride", "row_stride", "block_stride")
    ]
    + [
        (name, np.int64, (MAX_AXES,))
        for name in ("image", "block", "counts", "stride", "dilation", "begin")
    ]
    + [("narrow", np.int64)],
    align=True,
)


def _geometry(attrs: Attrs) -> tuple[tuple[int, ...], ...]:
    """Return image, block, strides, dilations, begins of the padding, and blocks on each axis."""
    image = as_ints(attrs["image"], "image", where="col2im")
    block = as_ints(attrs["block"], "block", where="col2im")
    n = len(image)
    strides, dilations = (
        (1,) * n if attrs[k] is None else as_ints(attrs[k], k, where="col2im")
        for k in ("strides", "dilations")
    )
    pads = (0,) * (2 * n) if attrs["pads"] is None else as_ints(attrs["pads"], "pads",
                                                                where="col2im")  # fmt: skip
    lengths = {len(block), len(strides), len(dilations), len(pads) // 2}
    if lengths != {n} or min(*image, *block, *strides, *dilations) < 1 or min(pads) < 0:
        fail("col2im", "attributes", expected=f"positive numbers for {n} axes", got=dict(attrs),
             remedy="Give each axis its number.")  # fmt: skip
    counts = tuple(
        (image[i] + pads[i] + pads[i + n] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
        for i in range(n)
    )
    return image, block, strides, dilations, pads[:n], counts


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    image, block, _, _, _, counts = _geometry(attrs)
    x, taps = ins[0], math.prod(block)
    if x.ndim != 3 or min(counts) < 1 or x.shape[1] % taps or x.shape[2] != math.prod(counts):
        fail("col2im", "input", expected=f"(batch, channels * {taps}, {math.prod(counts)})", got=x,
             remedy="Give a column for each block.")  # fmt: skip
    return (TensorSpec((x.shape[0], x.shape[1] // taps, *image), x.dtype),)


def _ranges(attrs: Attrs, tap: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return which blocks have a tap inside the image, and where that is."""
    image, _, strides, dilations, begin, counts = _geometry(attrs)
    sources, targets = [], []
    for i, k in enumerate(tap):
        shift = k * dilations[i] - begin[i]
        first = max(0, -(shift // strides[i])) if shift < 0 else 0
        last = min(counts[i], (image[i] - 1 - shift) // strides[i] + 1)
        last = max(first, last)
        start = first * strides[i] + shift
        sources.append(slice(first, last))
        targets.append(slice(start, start + (last - first) * strides[i], strides[i]))
    return tuple(sources), tuple(targets)


def _scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    work = working_dtype(outs[0].dtype)
    summed_in_place = work == outs[0].dtype or device_kind != "cpu"
    return () if summed_in_place else (TensorSpec(outs[0].shape, work),)


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x,), (out,) = ins, outs
    _, block, *_, counts = _geometry(attrs)
    blocks = xp.reshape(x, (*out.shape[:2], *block, *counts), copy=False)
    total = scratch[0] if scratch else out
    steps: list[Launch] = [partial(total.fill, 0)]
    for tap in itertools.product(*map(range, block)):
        source, target = _ranges(attrs, tap)
        part = total[(slice(None), slice(None), *target)]
        if part.size:
            read = blocks[(slice(None), slice(None), *tap, *source)]
            steps.append(partial(xp.add, part, read, part))
    if total is not out:
        steps.append(partial(xp.copyto, out, total, casting="same_kind"))
    return launch_all(steps)


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x,), (out,) = ins, outs
    geometry = _geometry(attrs)
    n = len(geometry[0])
    if not out.size:
        return ()
    if n > MAX_AXES:
        return None
    p = np.zeros((), _BLOCKS)
    p["size"], p["channels"] = out.size, out.shape[1]
    strides = [stride // x.dtype.itemsize for stride in x.strides]
    p["image_stride"], p["row_stride"], p["block_stride"] = strides
    for name, numbers in zip(_PER_AXIS, geometry, strict=True):
        p[name][:n] = numbers
    p["narrow"] = max(*(p["image"] + p["begin"]), *p["stride"]) < 1 << 31
    entry = f"col2im<{CUDA_NUMBERS[out.dtype.name]}, {n}>"
    return (KernelLaunch("col2im.cu", entry, grid_for(out.size), (THREADS, 1, 1), (x, out, p)),)


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x = np.asarray(ins[0], np.float64)
    image, block, strides, dilations, begin, counts = _geometry(attrs)
    channels = x.shape[1] // math.prod(block)
    out = np.zeros((x.shape[0], channels, *image))
    columns = x.reshape(x.shape[0], channels, *block, *counts)
    for tap in np.ndindex(*block):
        for which in np.ndindex(*counts):
            at = tuple(
                w * s + t * d - b
                for w, s, t, d, b in zip(which, strides, tap, dilations, begin, strict=True)
            )
            if all(0 <= a < e for a, e in zip(at, image, strict=True)):
                every = (slice(None), slice(None))
                out[(*every, *at)] += columns[(*every, *tap, *which)]
    return (out,)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(float(ins[0].size), 3.0 * ins[0].nbytes)


OPS = (
    Op(
        name="col2im",
        kind="Col2Im",
        doc="""Add blocks into an image where they were taken from.

        Parameters
        ----------
        x: shape (batch, channels * taps, blocks), float
        image, block
            Extents of the image and of a block.
        strides, dilations, pads
            As of a convolution; None means 1, 1 and 0.

        Returns
        -------
        Shape (batch, channels, *image).
        """,
        n_inputs=(1, 1),
        attrs={"image": REQUIRED, "block": REQUIRED, "strides": None, "dilations": None,
               "pads": None},
        infer=_infer,
        bind=_bind,
        kernel=_kernel,
        reference=_reference,
        scratch=_scratch,
        cost=_cost,
        dtypes=FLOATS,
        cases=(
            OpCase("apart", (f32(1, 5, 5),), {"image": (5, 5), "block": (1, 5)}),
            OpCase("overlap", (f32(2, 8, 9),), {"image": (4, 4), "block": (2, 2)}),
            OpCase("pads", (f32(1, 8, 6),),
                   {"image": (4, 5), "block": (2, 2), "strides": (2, 2), "dilations": (2, 1),
                    "pads": (1, 0, 0, 1)}),
            OpCase("line", (f32(2, 6, 4),), {"image": (9,), "block": (3,), "strides": (2,)}),
            OpCase("volume", (f32(1, 16, 8),), {"image": (3, 3, 3), "block": (2, 2, 2)}),
            OpCase("half", (spec((1, 9, 9), "float16"),), {"image": (5, 5), "block": (3, 3)},
                   rtol=1e-3, atol=1e-3),
            OpCase("double", (spec((1, 8, 9), "float64"),), {"image": (4, 4), "block": (2, 2)},
                   rtol=1e-12, atol=1e-12),
            OpCase("many_axes", (f32(1, 4, 4),),
                   {"image": (3, *[1] * 7, 3), "block": (2, *[1] * 7, 2)}),
            OpCase("none", (f32(0, 8, 9),), {"image": (4, 4), "block": (2, 2)}),
            OpCase("picture", (f32(1, 8 * 9, 46 * 46),), {"image": (48, 48), "block": (3, 3)},
                   perf=True, rtol=1e-4, atol=1e-5),
        ),
    ),
)  # fmt: skip
