"""Extents of a convolution, resolved from shapes and attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncnet_gpu.ops.base import Attrs
from asyncnet_gpu.ops.checks import as_int, fail
from asyncnet_gpu.ops.windows import Window, check_spatial, make_window


@dataclass(frozen=True, slots=True)
class ConvShape:
    """Extents of a convolution: images, groups, channels for each group in and out, window."""

    n: int
    groups: int
    c: int
    m: int
    window: Window

    @property
    def taps(self) -> int:
        """Taps of the kernel."""
        return math.prod(self.window.kernel)

    @property
    def positions(self) -> int:
        """Spatial positions of the output."""
        return math.prod(self.window.out)

    @property
    def pointwise(self) -> bool:
        """Whether every output position reads just the input position at its place."""
        window = self.window
        return self.taps == 1 and max(window.strides) == 1 and not window.padded


def conv_shape(ins: Sequence[Any], attrs: Attrs, *, where: str, n_spatial: int | None) -> ConvShape:
    """Resolve extents and attributes or raise `ShapeError`; `ins` are specs or arrays."""
    x, w = ins[0], ins[1]
    n = check_spatial(len(x.shape), n_spatial, where=where, shape=x.shape)
    groups = as_int(attrs["groups"], "groups", where=where)
    if len(w.shape) != n + 2 or min(w.shape) < 1:
        fail(where, "weights do not fit the input", expected=f"(m, c / groups) and {n} kernel axes",
             got=w.shape, remedy="Lay the weights out as (m, c / groups, *kernel).")  # fmt: skip
    if groups < 1 or w.shape[0] % groups or x.shape[1] != groups * w.shape[1]:
        fail(where, f"channels do not fit groups={groups}",
             expected=f"x (n, {groups * w.shape[1]}, ...) and m divisible by groups",
             got=f"x {x.shape}, w {w.shape}",
             remedy="Weights are (m, c / groups, *kernel).")  # fmt: skip
    if len(ins) > 2 and ins[2].shape != (w.shape[0],):
        fail(where, "bias does not fit the weights", expected=(w.shape[0],), got=ins[2].shape,
             remedy="Give one number for each output channel.")  # fmt: skip
    window = make_window(
        x.shape[2:], w.shape[2:], strides=attrs["strides"], pads=attrs["pads"],
        dilations=attrs["dilations"], where=where,
    )  # fmt: skip
    return ConvShape(x.shape[0], groups, w.shape[1], w.shape[0] // groups, window)
