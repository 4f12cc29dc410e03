"""Sample an image at positions that another blob gives (spatial transformer networks).

The image is padded without end, by zeros, its border or its reflection, and interpolated at the
positions. So a cubic sample just outside still feels the pixels within its reach, as it does in
PyTorch and onnxruntime, and the result is continuous. ONNX's own reference implementation moves the
position itself to the border when it is outside, which jumps there; its text leaves it open, and
points to PyTorch's function.

Source: M. Jaderberg and others, *Spatial transformer networks*, 2015.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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
)
from asyncnet_gpu.ops.blocks import working_dtype
from asyncnet_gpu.ops.checks import fail, one_of
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, plane_grid
from asyncnet_gpu.specs import TensorSpec, spec

MODES = ("linear", "nearest", "cubic")
PADDINGS = ("zeros", "border", "reflection")
_CUBIC_A = -0.75
_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
#: Pixels beyond which a position is as good as any other.
_FAR = 1e9


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


# -- the CPU ---------------------------------------------------------------------------------


def _pixels(xp: Any, grid: Any, extent: int, attrs: Attrs) -> Any:
    """Return positions on an axis in pixels; ``grid_sample.cu`` rounds in the same order."""
    if attrs["align_corners"]:
        at = (grid + 1) * ((extent - 1) / 2)
    else:
        at = ((grid + 1) * extent - 1) / 2
    return xp.where(at >= -_FAR, xp.minimum(at, _FAR), -_FAR)  # NaN is no position: far outside


def _weights(part: Any, mode: str) -> list[Any]:
    """Return what the taps weigh for positions that lie `part` behind the tap before them."""
    if mode == "linear":
        return [1 - part, part]
    a = _CUBIC_A
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (part, 1 - part)]
    far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (part + 1, 2 - part)]
    return [far[0], *near, far[1]]


def _folded(xp: Any, place: Any, extent: int, attrs: Attrs) -> Any:
    """Return the element that stands at each place, inside the image or not."""
    if attrs["padding"] != "reflection":
        return xp.clip(place, 0, extent - 1)
    # Mirrors at the centres of the outermost pixels, or at their outer edges.
    edge = 0 if attrs["align_corners"] else 1
    period = max(1, 2 * (extent - 1 + edge))
    away = xp.mod(place, period)
    return xp.where(away < extent, away, period - edge - away)


def _taps(xp: Any, grid: Any, extent: int, attrs: Attrs) -> list[tuple[Any, Any, Any]]:
    """Return place, weight (None: 1) and whether it is inside for the taps of one axis."""
    at, mode = _pixels(xp, grid, extent, attrs), attrs["mode"]
    if mode == "nearest":
        first, weights = xp.rint(at), [None]
    else:
        first = xp.floor(at)
        weights = _weights(at - first, mode)
    first = first.astype(np.int64) - (1 if mode == "cubic" else 0)
    made = []
    for k, weight in enumerate(weights):
        place = first + k
        inside = (place >= 0) & (place < extent)
        made.append((_folded(xp, place, extent, attrs), weight, inside))
    return made


def _sample(xp: Any, image: Any, grid: Any, out: Any, attrs: Attrs) -> None:
    """Fill ``out`` (channels, points) from one image (channels, *space) and its grid."""
    space, dtype = image.shape[1:], working_dtype(out.dtype)
    size = math.prod(space)
    # Behind the pixels a zero: what stands outside where padding is zeros.
    flat = xp.zeros((image.shape[0], size + 1), image.dtype)
    flat[:, :size] = image.reshape(image.shape[0], size)
    points = grid.reshape(-1, grid.shape[-1])
    points = points.astype(working_dtype(points.dtype))
    # The grid gives x, y, z: the last axis first.
    axes = [_taps(xp, points[:, len(space) - 1 - i], n, attrs) for i, n in enumerate(space)]
    total = xp.zeros(out.shape, dtype)
    for taps in itertools.product(*axes):
        at: Any = 0
        weight: Any = 1
        inside: Any = True
        for (place, part, within), extent in zip(taps, space, strict=True):
            at = at * extent + place
            weight = weight if part is None else weight * part.astype(dtype)
            inside = inside & within
        if attrs["padding"] == "zeros":
            at = xp.where(inside, at, size)
        total += flat[:, at] * weight
    xp.copyto(out, total, casting="same_kind")


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    x, grid, out = ins[0], ins[1], outs[0]
    flat = out.reshape(*out.shape[:2], math.prod(out.shape[2:]))

    def launch() -> None:
        for image, positions, result in zip(x, grid, flat, strict=True):
            _sample(xp, image, positions, result, attrs)

    return launch


# -- the kernel ------------------------------------------------------------------------------

#: Most spatial axes that the kernel takes; the same number stands in ``grid_sample.cu``.
_MOST_SPACE = 6

#: The struct `Sampling` of ``grid_sample.cu``: strides in elements.
_SAMPLING = np.dtype(
    [
        (name, np.int64)
        for name in ("images", "channels", "points", "image_stride", "channel_stride",
                     "grid_image_stride", "grid_last_stride")
    ]
    + [(name, np.int64, (_MOST_SPACE,)) for name in ("extent", "stride", "out", "grid_stride")]
    + [("padding", np.int32), ("align_corners", np.int32)],
    align=True,
)  # fmt: skip


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x, grid), (out,) = ins, outs
    n = x.ndim - 2
    if not out.size:
        return ()
    if n > _MOST_SPACE:
        return None
    p = np.zeros((), _SAMPLING)
    strides = [s // x.dtype.itemsize for s in x.strides]
    grid_strides = [s // grid.dtype.itemsize for s in grid.strides]
    p["images"], p["channels"], *p["extent"][:n] = x.shape
    p["image_stride"], p["channel_stride"], *p["stride"][:n] = strides
    p["points"], p["out"][:n] = math.prod(out.shape[2:]), out.shape[2:]
    p["grid_image_stride"], *p["grid_stride"][:n], p["grid_last_stride"] = grid_strides
    p["padding"], p["align_corners"] = PADDINGS.index(attrs["padding"]), attrs["align_corners"]
    shape, block = plane_grid(x.shape[0] * math.prod(out.shape[2:]), x.shape[1])
    types = f"{CUDA_NUMBERS[x.dtype.name]}, {CUDA_NUMBERS[grid.dtype.name]}"
    entry = f"grid_sample<{types}, {n}, {_TAPS[attrs['mode']]}>"
    return (KernelLaunch("grid_sample.cu", entry, shape, block, (x, grid, out, p)),)


# -- reference and definition ----------------------------------------------------------------


def _padded(place: int, extent: int, attrs: Attrs) -> int | None:
    """Walk from an integer place to the element that stands there; None for a zero."""
    if attrs["padding"] == "zeros":
        return place if 0 <= place < extent else None
    if attrs["padding"] == "border" or extent == 1:
        return min(max(place, 0), extent - 1)
    low, high = (0.0, extent - 1.0) if attrs["align_corners"] else (-0.5, extent - 0.5)
    at = float(place)
    while not low <= at <= high:
        at = 2 * (low if at < low else high) - at
    return int(at)


def _mixture(at: float, mode: str) -> list[tuple[int, float]]:
    """Return (place, weight) of what one position mixes."""
    if mode == "nearest":
        return [(round(at), 1.0)]
    first = math.floor(at)
    if mode == "linear":
        return [(first, 1 - (at - first)), (first + 1, at - first)]
    a, mixed = _CUBIC_A, []
    for place in range(first - 1, first + 3):
        d = abs(at - place)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        mixed.append((place, near if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a))
    return mixed


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    """Pixel by pixel in float64: the padded image, interpolated."""
    x, grid = (np.asarray(a, np.float64) for a in ins)
    space, rank = x.shape[2:], x.ndim - 2
    out = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
    for n, *where in np.ndindex(len(x), *grid.shape[1:-1]):
        mixtures = []
        for axis, extent in enumerate(space):
            g = float(grid[(n, *where, rank - 1 - axis)])
            at = (
                (g + 1) * (extent - 1) / 2 if attrs["align_corners"] else ((g + 1) * extent - 1) / 2
            )
            mixtures.append(_mixture(at, attrs["mode"]))
        for taps in itertools.product(*mixtures):
            places = [_padded(p, e, attrs) for (p, _), e in zip(taps, space, strict=True)]
            if None not in places:
                weight = math.prod(w for _, w in taps)
                out[(n, slice(None), *where)] += weight * x[(n, slice(None), *places)]
    return (out,)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    taps = _TAPS[attrs["mode"]] ** (ins[0].ndim - 2)
    return Cost(4.0 * taps * outs[0].size, 4.0 * taps * outs[0].nbytes)


#: Positions beyond any image.
_FAR_AWAY = [[[[-40.0, 0.3], [1e6, -3.0], [0.2, 2e5], [-7.0, 9.0]]]]

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
            Outside the image are "zeros", its "border", or its "reflection"; what is interpolated
            is the image so padded.
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
        kernel=_kernel,
        reference=_reference,
        cost=_cost,
        dtypes=FLOATS,
        cases=tuple(
            OpCase(f"{mode}_{padding}", (f32(2, 3, 4, 5), f32(2, 3, 2, 2)),
                   {"mode": mode, "padding": padding, "align_corners": padding == "border"},
                   rtol=1e-4, atol=1e-5, low=-1.3, high=1.3)
            for mode in MODES for padding in PADDINGS
        )
        + (
            OpCase("volume", (f32(1, 2, 3, 4, 3), f32(1, 2, 2, 2, 3)), rtol=1e-4, atol=1e-5),
            OpCase("volume_cubic", (f32(2, 1, 3, 4, 3), f32(2, 3, 1, 2, 3)),
                   {"mode": "cubic", "padding": "reflection"}, rtol=1e-4, atol=1e-4),
            OpCase("line", (f32(2, 2, 5), f32(2, 7, 1)), {"padding": "border"}, rtol=1e-4,
                   atol=1e-5),
            OpCase("half", (spec((1, 2, 4, 5), "float16"), spec((1, 3, 3, 2), "float16")),
                   {"padding": "border"}, rtol=2e-3, atol=2e-3),
            OpCase("double", (spec((1, 2, 4, 5), "float64"), f32(1, 3, 3, 2)), rtol=1e-5,
                   atol=1e-5),
            OpCase("far", (f32(1, 2, 3, 4), np.array(_FAR_AWAY, np.float32)),
                   {"mode": "cubic", "padding": "border"}, rtol=1e-4, atol=1e-5),
            OpCase("many_axes", (f32(1, 1, *[2] * 7), f32(1, *[1] * 6, 2, 7)), rtol=1e-4,
                   atol=1e-5),
            OpCase("one_pixel", (f32(1, 2, 1, 1), f32(1, 2, 2, 2)),
                   {"padding": "reflection", "align_corners": True}, rtol=1e-4, atol=1e-5),
            OpCase("none", (f32(0, 2, 3, 3), f32(0, 2, 2, 2))),
            OpCase("picture", (f32(2, 16, 48, 48), f32(2, 48, 48, 2)), perf=True, rtol=1e-4,
                   atol=1e-4, low=-1.1, high=1.1),
        ),
    ),
)  # fmt: skip
