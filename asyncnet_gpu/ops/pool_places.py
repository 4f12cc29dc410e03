"""Maximum pooling that also says where each maximum was."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    NUMBERS,
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
from asyncnet_gpu.ops.indexing import element_strides
from asyncnet_gpu.ops.pool import POOL_ATTRS, lowest, pool_layout, pool_window
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, THREADS, grid_for, launch_all, nothing
from asyncnet_gpu.ops.windows import Window
from asyncnet_gpu.specs import TensorSpec, spec

_WHERE = "max_pool_places"


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    window = pool_window(ins[0], attrs, where=_WHERE)
    shape = (*ins[0].shape[:2], *window.out)
    return (TensorSpec(shape, ins[0].dtype), TensorSpec(shape, np.dtype(np.int64)))


def _scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    return _temporaries(outs[0].shape[1:]) if device_kind == "cpu" else ()


def _temporaries(image: tuple[int, ...]) -> Specs:
    """For one image: which outputs a tap wins, which inputs are NaN, the tap's places."""
    mask = TensorSpec(image, np.dtype(np.bool_))
    return (mask, mask, TensorSpec(image, np.dtype(np.int64)))


def _origins(xp: Any, shape: tuple[int, ...], window: Window) -> Any:
    """Return, for every output of an image, the place of tap 0 within the image, in C order."""
    strides = element_strides(shape[1:])
    table = np.arange(shape[1]) * strides[0]
    for axis, out in enumerate(window.out):
        first = np.arange(out) * window.strides[axis] - window.begin[axis]
        table = table[..., None] + first * strides[axis + 1]
    return xp.asarray(table)


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    """Go through the taps from the last to the first: of equal maxima the first one stays."""
    (x,), (out, places) = ins, outs
    if not out.size:
        return nothing
    window = pool_window(x, attrs, where=_WHERE)
    if not scratch:
        scratch = [xp.empty(s.shape, s.dtype) for s in _temporaries(out.shape[1:])]
    wins, nan, at = scratch
    origins, strides = _origins(xp, x.shape, window), element_strides(x.shape[2:])
    taps = list(itertools.product(*[window.taps(axis) for axis in range(len(window.out))]))
    steps: list[Launch] = []
    for image in range(x.shape[0]):
        first = image * math.prod(x.shape[1:])
        steps += [partial(out[image].fill, lowest(x.dtype)), partial(places[image].fill, 0)]
        for tap in reversed(taps):
            here = (slice(None), *[reached for _, reached, _ in tap])
            read = x[(image, slice(None), *[there for _, _, there in tap])]
            best, where, won = out[image][here], places[image][here], wins[here]
            shift = first + sum(
                k * d * s for (k, _, _), d, s in zip(tap, window.dilations, strides, strict=True)
            )
            steps.append(partial(xp.greater_equal, read, best, won))
            if x.dtype.kind == "f":  # NaN wins, though no comparison says so
                steps.append(partial(xp.isnan, read, nan[here]))
                steps.append(partial(xp.logical_or, won, nan[here], won))
            steps.append(partial(xp.copyto, best, read, where=won))
            steps.append(partial(xp.add, origins[here], shift, at[here]))
            steps.append(partial(xp.copyto, where, at[here], where=won))
    return launch_all(steps)


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x,), (out, places) = ins, outs
    if not out.size:
        return ()
    window = pool_window(x, attrs, where=_WHERE)
    layout = pool_layout(x, out, window, count_padding=False)
    entry = f"max_pool_places<{CUDA_NUMBERS[x.dtype.name]}>"
    args = (x, out, places, layout)
    return (KernelLaunch("pool.cu", entry, grid_for(out.size), (THREADS, 1, 1), args),)


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    (x,) = ins
    window = pool_window(x, attrs, where=_WHERE)
    out = np.full((*x.shape[:2], *window.out), lowest(x.dtype), x.dtype)
    places = np.zeros(out.shape, np.int64)
    numbers = np.arange(x.size).reshape(x.shape)
    for image, channel, *position in np.ndindex(out.shape):
        seen = []
        for tap in np.ndindex(window.kernel):
            at = [
                p * s + k * d - b
                for p, s, k, d, b in zip(
                    position, window.strides, tap, window.dilations, window.begin, strict=True
                )
            ]
            if all(0 <= i < e for i, e in zip(at, window.extent, strict=True)):
                place = (image, channel, *at)
                seen.append((x[place], numbers[place]))
        if seen:
            best = int(np.argmax([value for value, _ in seen]))  # the first NaN, else first maximum
            out[(image, channel, *position)], places[(image, channel, *position)] = seen[best]
    return (out, places)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    window = pool_window(ins[0], attrs, where=_WHERE)
    moved = ins[0].nbytes + sum(s.nbytes for s in outs)
    return Cost(4.0 * outs[0].size * math.prod(window.kernel), float(moved))


_EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}
_NAN = np.array([1.0, np.nan, 3.0, np.nan, 5.0, 5.0], np.float32).reshape(1, 1, 6)

OPS = (
    Op(
        name=_WHERE,
        kind="MaxPoolPlaces",
        doc="""Maximum over sliding windows, and the place of each maximum.

        Parameters
        ----------
        x: (n, c, *spatial)
        kernel, strides, pads, dilations, ceil_mode
            As in `max_pool`.

        Returns
        -------
        The maxima, (n, c, *out), and int64 places of the same shape: positions in all of `x`,
        counted in C order. Of equal maxima, and of several NaN, the first; 0 for a window that
        sees nothing.
        """,
        n_inputs=(1, 1),
        attrs=POOL_ATTRS,
        infer=_infer,
        bind=_bind,
        kernel=_kernel,
        reference=_reference,
        scratch=_scratch,
        cost=_cost,
        dtypes=NUMBERS,
        cases=(
            OpCase("1d", (f32(2, 3, 9),), {"kernel": 3, "strides": 2}, **_EXACT),
            OpCase("pads", (f32(2, 3, 7, 6),), {"kernel": 3, "strides": 2, "pads": (1, 0, 1, 2)},
                   **_EXACT),
            OpCase("dilations", (f32(1, 2, 9, 9),), {"kernel": 3, "dilations": (2, 3), "pads": 1},
                   **_EXACT),
            OpCase("ceil", (f32(1, 2, 6, 7),), {"kernel": 3, "strides": 2, "ceil_mode": True},
                   **_EXACT),
            OpCase("3d", (f32(1, 2, 4, 5, 6),), {"kernel": (2, 3, 2), "strides": (1, 2, 2)},
                   **_EXACT),
            OpCase("equal", (spec((1, 2, 6, 6), "int8"),), {"kernel": 3}, **_EXACT),
            OpCase("nan", (_NAN,), {"kernel": 3}, **_EXACT),
            OpCase("only_padding", (f32(1, 1, 3, 3),), {"kernel": 2, "pads": 3}, **_EXACT),
            OpCase("lowest", (np.full((1, 1, 4), -np.inf, np.float32),), {"kernel": 2}, **_EXACT),
            OpCase("half", (spec((1, 2, 5, 5), "float16"),), {"kernel": 2}, **_EXACT),
            OpCase("no_images", (f32(0, 2, 4, 4),), {"kernel": 2}, **_EXACT),
        ),
    ),
)  # fmt: skip
