"""Sample an image at positions that another blob gives (spatial transformer networks).

Source: M. Jaderberg and others, *Spatial transformer networks*, 2015.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import FLOATS, Arrays, Attrs, Cost, Launch, Op, OpCase, Specs, f32
from asyncnet_gpu.ops.checks import fail, one_of
from asyncnet_gpu.specs import TensorSpec

MODES = ("linear", "nearest", "cubic")
PADDINGS = ("zeros", "border", "reflection")
_CUBIC_A = -0.75


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    one_of(attrs["mode"], "mode", MODES, where="grid_sample")
    one_of(attrs["padding"], "padding", PADDINGS, where="grid_sample")
    x, grid = ins
    n = x.ndim - 2
    fits = n >= 1 and grid.ndim == x.ndim and grid.shape[0] == x.shape[0] and grid.shape[-1] == n
    if not fits or grid.dtype.name not in FLOATS:
        fail("grid_sample", "grid", expected=f"({x.shape[0] if x.ndim else '?'}, *out, {n}) float",
             got=grid, remedy="Give a position for each point of the result.")  # fmt: skip
    if 0 in x.shape[2:]:
        fail("grid_sample", "input", expected="at least one position on each axis", got=x,
             remedy="Nothing cannot be sampled.")  # fmt: skip
    return (TensorSpec((*x.shape[:2], *grid.shape[1:-1]), x.dtype),)


def _reflect(xp: Any, at: Any, low: float, high: float) -> Any:
    """Fold positions back between two mirrors."""
    span = high - low
    if span <= 0:
        return xp.zeros_like(at)
    away = xp.mod(at - low, 2 * span)
    return low + xp.minimum(away, 2 * span - away)


def _position(xp: Any, grid: Any, length: int, attrs: Attrs) -> tuple[Any, float, float]:
    """Return positions on an axis in pixels, and the mirrors of the reflection."""
    if attrs["align_corners"]:
        return (grid + 1) * ((length - 1) / 2), 0.0, length - 1.0
    return ((grid + 1) * length - 1) / 2, -0.5, length - 0.5


def _fold(xp: Any, at: Any, length: int, low: float, high: float, padding: str) -> Any:
    if padding == "border":
        return xp.clip(at, 0, length - 1)
    return _reflect(xp, at, low, high) if padding == "reflection" else at


def _taps(xp: Any, at: Any, mode: str) -> list[tuple[Any, Any]]:
    """Return (place, weight) of the input positions that one output position mixes."""
    if mode == "nearest":
        return [(at, xp.ones_like(at))]
    first = xp.floor(at)
    part = at - first
    if mode == "linear":
        return [(first, 1 - part), (first + 1, part)]
    a = _CUBIC_A
    near = [(a + 2) * d**3 - (a + 3) * d**2 + 1 for d in (part, 1 - part)]
    far = [a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a for d in (part + 1, 2 - part)]
    return [(first - 1, far[0]), (first, near[0]), (first + 1, near[1]), (first + 2, far[1])]


def _axis(xp: Any, grid: Any, length: int, attrs: Attrs) -> list[tuple[Any, Any]]:
    """Return the taps of one axis as integer places inside it and weights (0 outside)."""
    at, low, high = _position(xp, grid, length, attrs)
    mode, padding = attrs["mode"], attrs["padding"]
    at = xp.where(xp.isfinite(at), at, -1e9)  # no position at all is one far outside
    if mode == "nearest":
        at = xp.rint(at)
    outside = (at < low) | (at > high)
    at = xp.where(outside, _fold(xp, at, length, low, high, padding), at)
    made = []
    for place, weight in _taps(xp, at, mode):
        if padding == "zeros":
            inside = (place >= 0) & (place <= length - 1)
            weight = xp.where(inside, weight, 0)
        else:
            folded = _fold(xp, place, length, low, high, padding)
            place = xp.trunc(xp.where((place < 0) | (place > length - 1), folded, place))
        made.append((xp.clip(place, 0, length - 1).astype(xp.int64), weight))
    return made


def _sample(xp: Any, image: Any, grid: Any, out: Any, attrs: Attrs) -> None:
    """Fill ``out`` (channels, points) from one image (channels, *space) and its grid."""
    space = image.shape[1:]
    flat = image.reshape(image.shape[0], -1)
    points = grid.reshape(-1, grid.shape[-1])
    # The grid gives x, y, z: the last axis first.
    axes = [_axis(xp, points[:, len(space) - 1 - i], n, attrs) for i, n in enumerate(space)]
    out[...] = 0
    for taps in itertools.product(*axes):
        place: Any = 0
        weight: Any = 1
        for (at, part), length in zip(taps, space, strict=True):
            place = place * length + at
            weight = weight * part
        out += flat[:, place] * weight.astype(out.dtype)


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, grid, out = ins[0], ins[1], outs[0]
    flat = out.reshape(*out.shape[:2], math.prod(out.shape[2:]))

    def launch() -> None:
        for image, positions, result in zip(x, grid, flat, strict=True):
            _sample(xp, image, positions, result, attrs)

    return launch


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    """Pixel by pixel, as the definition of the operator has it."""
    x: Any = np.asarray(ins[0], np.float64)
    grid: Any = np.asarray(ins[1], np.float64)
    space, rank = x.shape[2:], x.ndim - 2
    out: Any = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
    for n in range(len(x)):
        for where in np.ndindex(grid.shape[1:-1]):
            axes = [_axis(np, grid[n][where][rank - 1 - i], space[i], attrs) for i in range(rank)]
            for taps in itertools.product(*axes):
                at = tuple(int(place) for place, _ in taps)
                weight = math.prod(float(w) for _, w in taps)
                out[(n, slice(None), *where)] += weight * x[(n, slice(None), *at)]
    return (out,)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    taps = {"nearest": 1, "linear": 2, "cubic": 4}[attrs["mode"]] ** (ins[0].ndim - 2)
    return Cost(4.0 * taps * outs[0].size, 4.0 * taps * outs[0].nbytes)


OPS = (
    Op(
        name="grid_sample",
        kind="GridSample",
        doc="""Sample images at given positions.

        Parameters
        ----------
        x: shape (batch, channels, *space), float
        grid: shape (batch, *out, len(space)), float
            Positions, last axis of the image first; -1 and 1 are its borders.
        mode
            "linear", "nearest" or "cubic".
        padding
            Outside the image are "zeros", its "border", or its "reflection".
        align_corners
            -1 and 1 are the centres of the first and last pixel, not their outer edges.

        Returns
        -------
        Shape (batch, channels, *out).
        """,
        n_inputs=(2, 2),
        attrs={"mode": "linear", "padding": "zeros", "align_corners": False},
        infer=_infer,
        bind=_bind,
        reference=_reference,
        cost=_cost,
        dtypes=FLOATS,
        cases=tuple(
            OpCase(f"{mode}_{padding}", (f32(2, 3, 4, 5), f32(2, 3, 2, 2)),
                   {"mode": mode, "padding": padding, "align_corners": padding == "border"},
                   rtol=1e-4, atol=1e-5, low=-1.3, high=1.3)
            for mode in MODES for padding in PADDINGS
        )
        + (OpCase("volume", (f32(1, 2, 3, 4, 3), f32(1, 2, 2, 2, 3)), rtol=1e-4, atol=1e-5),),
    ),
)  # fmt: skip
