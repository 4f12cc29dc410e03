"""Regions of interest, each sampled to the same size.

Source: K. He and others, *Mask R-CNN*, 2017, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.errors import UnsupportedOpError, message
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
    same_dtype,
)
from asyncnet_gpu.ops.blocks import working_dtype
from asyncnet_gpu.ops.checks import as_int, fail, one_of
from asyncnet_gpu.ops.elementwise_kernel import CUDA_TYPES
from asyncnet_gpu.ops.strided import THREADS, copy_launches, grid_for
from asyncnet_gpu.specs import TensorSpec

_WHERE = "roi_align"
_MODES = ("average", "max")

#: The struct `Regions` of ``roi_align.cu``.
_REGIONS = np.dtype(
    [
        ("size", np.int64), ("channels", np.int64), ("stride", np.int64, (4,)),
        ("scale", np.float64), ("offset", np.float64),
        *((name, np.int32) for name in ("height", "width", "out_height", "out_width")),
        ("samples", np.int32), ("images", np.int32),
    ],
    align=True,
)  # fmt: skip


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    x, regions, images = ins
    one_of(attrs["mode"], "mode", _MODES, where=_WHERE)
    size = tuple(attrs["size"])
    same_dtype(ins[:2], where=_WHERE)
    if x.ndim != 4 or regions.shape[1:] != (4,) or images.shape != regions.shape[:1]:
        fail(_WHERE, "shapes", expected="images (n, c, h, w), regions (r, 4), an image for each",
             got=", ".join(map(str, ins)), remedy="Reshape the blobs.")  # fmt: skip
    if images.dtype != np.int64 or 0 in x.shape[2:]:
        fail(_WHERE, "images", expected="int64, and pixels to sample", got=images,
             remedy="Use net.cast first.")  # fmt: skip
    if len(size) != 2 or min(size) < 1 or as_int(attrs["samples"], "samples", where=_WHERE) < 0:
        fail(_WHERE, f"size={size}, samples={attrs['samples']}", expected="positive extents",
             got=size, remedy="Give height and width of the result.")  # fmt: skip
    return (TensorSpec((regions.shape[0], x.shape[1], *size), x.dtype),)


def _bins(begin: Any, end: Any, n_bins: int, extent: int, attrs: Attrs, dtype: Any) -> Any:
    """Return pixels and weights of all samples on an axis: two arrays (2, samples)."""
    shift = dtype(0.5 if attrs["half_pixel"] else 0)
    scale = dtype(attrs["scale"])
    low = dtype(begin) * scale - shift
    length = dtype(end) * scale - shift - low
    if not attrs["half_pixel"]:
        length = max(length, dtype(1))
    size = length / dtype(n_bins)
    count = attrs["samples"] or max(0, math.ceil(size))
    part = (np.arange(count, dtype=dtype) + dtype(0.5)) * size / dtype(max(1, count))
    at = (low + np.arange(n_bins, dtype=dtype)[:, None] * size + part).reshape(-1)
    inside = (at >= -1) & (at <= extent)
    at = np.where(inside, np.maximum(at, dtype(0)), dtype(0))
    first = np.minimum(at.astype(np.int64), extent - 1)
    weight = np.where(first >= extent - 1, dtype(0), at - first.astype(dtype))
    second = np.minimum(first + 1, extent - 1)
    return count, np.stack([first, second]), np.stack([(1 - weight) * inside, weight * inside])


def _sample(image: Any, box: Any, out: Any, attrs: Attrs) -> None:
    """Fill ``out`` (c, height, width) from one image (c, h, w)."""
    dtype = working_dtype(image.dtype).type
    height, width = out.shape[1:]
    n_y, ys, v = _bins(box[1], box[3], height, image.shape[1], attrs, dtype)
    n_x, xs, w = _bins(box[0], box[2], width, image.shape[2], attrs, dtype)
    if not n_y or not n_x:
        out[...] = 0
        return
    shape = (-1, height, n_y, width, n_x)
    corners = [
        (image[:, ys[a][:, None], xs[b]] * (v[a][:, None] * w[b])).reshape(shape)
        for a in (0, 1)
        for b in (0, 1)
    ]
    if attrs["mode"] == "max":
        out[...] = np.max(corners, axis=(0, 3, 5))
    else:
        out[...] = sum(c.sum((2, 4)) for c in corners) / dtype(n_y * n_x)


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    if xp is not np:  # the kernel takes every dtype and layout
        raise UnsupportedOpError(message(_WHERE, "array library", expected="NumPy",
                                         got=xp.__name__, remedy="Report this."))  # fmt: skip
    (x, regions, images), (out,) = ins, outs

    def launch() -> None:
        for box, image, made in zip(regions, images, out, strict=True):
            if 0 <= image < len(x):
                _sample(x[image], box, made, attrs)
            else:
                made[...] = 0

    return launch


def _copies(sources: Arrays, targets: Arrays) -> Sequence[KernelLaunch]:
    """Return launches that make small operands contiguous."""
    made = copy_launches(list(zip(sources, targets, strict=True)))
    assert made is not None, "operands of at most two axes"
    return made


def _kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x, *_), (out,) = ins, outs
    if not out.size:
        return ()
    p = np.zeros((), _REGIONS)
    p["size"], p["channels"] = out.size, x.shape[1]
    p["stride"] = [s // x.dtype.itemsize for s in x.strides]
    p["scale"], p["offset"] = attrs["scale"], 0.5 if attrs["half_pixel"] else 0
    p["images"], _, p["height"], p["width"] = x.shape
    p["out_height"], p["out_width"] = out.shape[2:]
    p["samples"] = attrs["samples"]
    largest = str(attrs["mode"] == "max").lower()
    entry = f"roi_align<{CUDA_TYPES[x.dtype.name]}, {largest}>"
    args = (x, *scratch, out, p)
    return (
        *_copies(ins[1:], scratch),
        KernelLaunch("roi_align.cu", entry, grid_for(out.size), (THREADS, 1, 1), args),
    )


def _scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    return () if device_kind == "cpu" else tuple(ins[1:])


def _pixel(plane: Any, y: float, x: float) -> list[float]:
    """Return the four weighted corners around a position, as the operator is defined."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return [0.0] * 4
    y, x = max(y, 0.0), max(x, 0.0)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    v = 0.0 if y0 >= height - 1 else y - y0
    w = 0.0 if x0 >= width - 1 else x - x0
    return [(1 - v) * (1 - w) * plane[y0, x0], (1 - v) * w * plane[y0, x1],
            v * (1 - w) * plane[y1, x0], v * w * plane[y1, x1]]  # fmt: skip


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    """Sample by sample in float64."""
    x, regions = (np.asarray(a, np.float64) for a in ins[:2])
    height, width = attrs["size"]
    out = np.zeros((len(regions), x.shape[1], height, width))
    for r, c, i, j in np.ndindex(out.shape):
        if not 0 <= ins[2][r] < len(x):
            continue
        x1, y1, x2, y2 = regions[r] * attrs["scale"] - (0.5 if attrs["half_pixel"] else 0)
        least = -np.inf if attrs["half_pixel"] else 1.0
        rows, columns = max(y2 - y1, least) / height, max(x2 - x1, least) / width
        n_y = attrs["samples"] or max(0, math.ceil(rows))
        n_x = attrs["samples"] or max(0, math.ceil(columns))
        found: list[float] = []
        for a, b in np.ndindex(n_y, n_x):
            y = y1 + (i + (a + 0.5) / n_y) * rows
            z = x1 + (j + (b + 0.5) / n_x) * columns
            found += _pixel(x[ins[2][r], c], y, z)
        if found:
            total = max(found) if attrs["mode"] == "max" else math.fsum(found) / (n_y * n_x)
            out[r, c, i, j] = total
    return (out,)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(40.0 * outs[0].size, 20.0 * outs[0].nbytes, gil=True)


_BOXES = np.array([[0, 0, 7, 5], [1.3, 2.2, 5.9, 6.1], [-3, -2, 2, 30], [4, 4, 3, 3]], np.float32)
_IMAGES = np.array([0, 1, 1, 0])


def _case(name: str, dtype: str = "float32", **attrs: object) -> OpCase:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 8)).astype(dtype)
    close = {"float16": 2e-2, "float32": 1e-4}.get(dtype, 1e-9)
    return OpCase(name, (x, _BOXES.astype(dtype), _IMAGES), {"size": (3, 2), **attrs}, rtol=close,
                  atol=close)  # fmt: skip


OPS = (
    Op(
        name="roi_align",
        kind="RoiAlign",
        doc="""Sample regions of images to the same size, without rounding their borders.

        Parameters
        ----------
        x: shape (n, c, h, w), float
        regions: shape (r, 4), dtype of x
            Left, top, right and bottom.
        images: shape (r,), int64
            The image of each region; one that is not there gives zeros.
        size
            Height and width of the result.
        samples
            Of each bin, along each axis; 0 takes as many as the bin has pixels.
        scale
            From the coordinates of the regions to those of x.
        half_pixel
            Pixels have their centre at 0.5.
        mode
            "average" of the samples, or "max" over their weighted corners.

        Returns
        -------
        Shape (r, c, *size).
        """,
        n_inputs=(3, 3),
        attrs={"size": REQUIRED, "samples": 0, "scale": 1.0, "half_pixel": True,
               "mode": "average"},
        infer=_infer,
        bind=_bind,
        reference=_reference,
        kernel=_kernel,
        scratch=_scratch,
        cost=_cost,
        dtypes=FLOATS,
        cases=(
            _case("two_samples", samples=2),
            _case("by_size"),
            _case("whole_pixels", half_pixel=False, scale=0.5),
            _case("max", samples=2, mode="max"),
            _case("max_float64", "float64", mode="max", half_pixel=False),
            _case("float16", "float16", samples=1),
            OpCase("none", (f32(1, 2, 3, 3), f32(0, 4), np.zeros(0, np.int64)), {"size": (2, 2)}),
        ),
    ),
)  # fmt: skip
