"""Where the outputs of a resampled axis lie in its input, and what they weigh there.

Sources: ONNX operator *Resize* for the coordinate systems; R. Keys, *Cubic convolution
interpolation for digital image processing*, 1981, for the cubic weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Attrs

Array = np.ndarray[Any, Any]

COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_crop_and_resize",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
MODES = ("nearest", "linear", "cubic")
_REACH = {"linear": 1, "cubic": 2}


@dataclass(frozen=True, slots=True)
class Source:
    """Where output o lies in the input: ``(o + before) * f * g / divisor + a + b``.

    One formula for all coordinate systems: a kernel that follows it, rounding after every
    operation, gets the same bits. `factor` is (f, g), `after` (a, b).
    """

    before: float = 0.0
    factor: tuple[float, float] = (1.0, 1.0)
    divisor: float = 1.0
    after: tuple[float, float] = (0.0, 0.0)

    def at(self, out: int) -> Array:
        """Return the sources of the first `out` outputs, shape (out,), float64."""
        first, second = self.factor
        spread = (np.arange(out, dtype=np.float64) + self.before) * first * second / self.divisor
        return spread + self.after[0] + self.after[1]


def _constant(place: float) -> Source:
    return Source(factor=(0.0, 1.0), after=(place, 0.0))


def _source(length: int, out: int, scale: float, mode: str, roi: tuple[float, float]) -> Source:
    if mode == "asymmetric":
        return Source(divisor=scale)
    if mode == "align_corners":
        wide = length * scale
        return Source(factor=((length - 1) / (wide - 1), 1.0)) if wide != 1 else _constant(0.0)
    if mode == "tf_crop_and_resize":
        start, end = roi
        if out == 1:
            return _constant(0.5 * (start + end) * (length - 1))
        return Source(0.0, (end - start, length - 1.0), out - 1.0, (start * (length - 1), 0.0))
    if mode == "pytorch_half_pixel" and out <= 1:
        return _constant(0.0)
    # The extent was cut to an integer: "symmetric" centres what is left.
    symmetric = mode == "half_pixel_symmetric"
    shift = 0.5 * length * (1 - out / (length * scale)) if symmetric else 0.0
    return Source(0.5, divisor=scale, after=(-0.5, shift))


@dataclass(frozen=True, slots=True)
class ResizedAxis:
    """One axis that is resampled.

    Attributes
    ----------
    axis
        Which.
    length, out
        Extents of the input and of the output.
    source
        Where outputs lie.
    taps
        Inputs that an output is made of.
    stretch
        Factor of distances before they are weighed: below 1 where a filter is widened.
    """

    axis: int
    length: int
    out: int
    source: Source
    taps: int
    stretch: float

    def places(self, attrs: Attrs) -> Array:
        """Return which inputs each output reads, shape (out, taps), int64."""
        at = self.source.at(self.out)
        if attrs["mode"] == "nearest":
            places = _rounded(at, attrs["rounding"])[:, None]
        else:
            places = self._first(at)[:, None] + np.arange(self.taps)
        return np.clip(places, 0, self.length - 1).astype(np.int64)

    def weights(self, attrs: Attrs) -> Array:
        """Return what they weigh, shape (out, taps), float64."""
        at = self.source.at(self.out)
        if attrs["mode"] == "nearest":
            return np.ones((self.out, 1))
        kernel = _linear if attrs["mode"] == "linear" else _cubic(attrs["cubic_a"])
        places = self._first(at)[:, None] + np.arange(self.taps)
        weights = kernel((at[:, None] - places) * self.stretch)
        if attrs["exclude_outside"]:
            weights = np.where((places >= 0) & (places < self.length), weights, 0)
        if attrs["exclude_outside"] or attrs["antialias"]:
            weights = weights / weights.sum(1, keepdims=True)
        return weights

    def outside(self) -> Array:
        """Return which outputs lie outside the input, shape (out,)."""
        at = self.source.at(self.out)
        return (at < 0) | (at > self.length - 1)

    def _first(self, at: Array) -> Array:
        return np.floor(at).astype(np.int64) - self.taps // 2 + 1


def _rounded(x: Array, rounding: str) -> Array:
    if rounding == "floor":
        return np.floor(x)
    if rounding == "ceil":
        return np.ceil(x)
    return np.ceil(x - 0.5) if rounding == "round_prefer_floor" else np.floor(x + 0.5)


def _linear(distance: Array) -> Array:
    weight: Array = np.maximum(0, 1 - np.abs(distance))
    return weight


def _cubic(a: float) -> Callable[[Array], Array]:
    def weight(distance: Array) -> Array:
        d = np.abs(distance)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    return weight


def resized_axes(shape: tuple[int, ...], attrs: Attrs) -> list[ResizedAxis]:
    """Return the axes that change, in order; `attrs` are those of ``resize``."""
    found = []
    rank, crops = len(shape), attrs["coordinates"] == "tf_crop_and_resize"
    for axis, (length, out) in enumerate(zip(shape, attrs["sizes"], strict=True)):
        scale = out / max(1, length) if attrs["scales"] is None else attrs["scales"][axis]
        roi = (attrs["roi"][axis], attrs["roi"][axis + rank]) if crops else (0.0, 1.0)
        if out == length and scale == 1 and roi == (0.0, 1.0):
            continue
        stretch = min(scale, 1.0) if attrs["antialias"] else 1.0
        reach = _REACH.get(attrs["mode"])
        taps = 1 if reach is None else 2 * math.ceil(reach / stretch)
        source = _source(length, out, scale, attrs["coordinates"], roi)
        found.append(ResizedAxis(axis, length, out, source, taps, stretch))
    return found
