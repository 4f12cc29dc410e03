"""Launches of ``resize.cu``: one for a node, or with wide filters one for each resized axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Attrs, KernelLaunch
from asyncnet_gpu.ops.resize_axes import ROUNDINGS, ResizedAxis, resized_axes
from asyncnet_gpu.ops.strided import CARRIERS, CUDA_NUMBERS, MAX_AXES, copy_launches, plane_grid
from asyncnet_gpu.specs import contiguous_strides

#: Most resized axes whose taps are mixed in one launch, and taps of each without a wide filter.
_MIXED_AXES = 3
_TAPS = {"linear": 2, "cubic": 4}
#: Places of a block of ``resize_axis``, whose planes share their weights.
_LANES = 32

#: The struct `Run` of ``resize.cu``.
_RUN = np.dtype(
    [(name, np.int64) for name in ("extent", "pitch", "length", "stride")]
    + [("before", np.float64), ("factor", np.float64, (2,)), ("divisor", np.float64)]
    + [("after", np.float64, (2,)), ("stretch", np.float64)]
    + [("taps", np.int32), ("resized", np.int32)],
    align=True,
)
#: The struct `Resample` of ``resize.cu``: strides in elements.
_RESAMPLE = np.dtype(
    [(name, np.int64) for name in ("size", "planes", "plane_stride")]
    + [("outside", np.uint64)]
    + [(name, np.float64) for name in ("cubic_a", "low", "high")]
    + [(name, np.int32) for name in ("ndim", "n_resized", "rounding", "cubic", "exclude_outside",
                                     "normalise", "crops", "narrow")]
    + [("run", _RUN, (MAX_AXES,))],
    align=True,
)  # fmt: skip

#: Extent, stride in elements, and how it is resized if it is.
_Axis = tuple[int, int, ResizedAxis | None]


def working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of sums: small integers and float16 in float32, large ones in float64."""
    return np.dtype(np.float32) if dtype == np.float16 else np.result_type(dtype, np.float32)


def result_bounds(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the least and the largest number of the working dtype that an integer dtype holds."""
    work = working_dtype(dtype).type
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    top = work(high)
    return work(low), top if int(top) <= high else np.nextafter(top, work(0))


def _runs(axes: Sequence[_Axis]) -> list[_Axis]:
    """Drop axes of one element and merge neighbours that are copied and one run in the input."""
    runs: list[_Axis] = []
    for extent, stride, how in axes:
        if how is None and extent == 1:
            continue
        if how is None and runs and runs[-1][2] is None and runs[-1][1] == stride * extent:
            runs[-1] = (runs[-1][0] * extent, stride, None)
        else:
            runs.append((extent, stride, how))
    return runs


def _outside_bits(attrs: Attrs, dtype: np.dtype[Any]) -> int:
    value = np.full((), attrs["extrapolation"]).astype(dtype)
    return int.from_bytes(value.tobytes(), "little")


def _resample(
    axes: Sequence[_Axis], summed: int, dtype: np.dtype[Any], attrs: Attrs, *, last: bool
) -> Any | None:
    """Return the struct for one launch; None where there are more runs than it holds.

    `summed` is the axis of ``resize_axis``, or -1; only the `last` launch fills what is outside.
    """
    runs = _runs(axes)
    planes = runs.pop(0) if runs and runs[0][2] is None else (1, 0, None)
    if len(runs) > MAX_AXES:
        return None
    p = np.zeros((), _RESAMPLE)
    pitches = contiguous_strides([extent for extent, _, _ in runs], 1)
    p["planes"], p["plane_stride"], _ = planes
    p["size"] = size = int(np.prod([extent for extent, _, _ in runs], dtype=np.int64))
    p["ndim"], p["narrow"] = len(runs), size < 1 << 31
    p["n_resized"] = sum(how is not None for _, _, how in runs)
    p["rounding"], p["cubic"] = ROUNDINGS.index(attrs["rounding"]), attrs["mode"] == "cubic"
    p["cubic_a"], p["exclude_outside"] = attrs["cubic_a"], bool(attrs["exclude_outside"])
    p["normalise"] = bool(attrs["exclude_outside"] or attrs["antialias"])
    p["crops"] = last and attrs["coordinates"] == "tf_crop_and_resize"
    p["outside"] = _outside_bits(attrs, dtype)
    if dtype.kind != "f" and attrs["mode"] != "nearest":
        p["low"], p["high"] = result_bounds(dtype)
    placed = list(zip(runs, pitches, strict=True))
    # First what is summed, then the other resized runs, then those that are copied.
    placed.sort(key=lambda r: 2 if r[0][2] is None else r[0][2].axis != summed)
    for i, ((extent, stride, how), pitch) in enumerate(placed):
        run = p["run"][i]
        run["extent"], run["pitch"], run["stride"], run["length"] = extent, pitch, stride, extent
        if how is not None:
            source = how.source
            run["resized"], run["length"], run["taps"] = 1, how.length, how.taps
            run["before"], run["factor"] = source.before, source.factor
            run["divisor"], run["after"], run["stretch"] = source.divisor, source.after, how.stretch
    return p


def _launch(entry: str, p: Any, x: Any, out: Any) -> KernelLaunch:
    grid, block = plane_grid(int(p["size"]), int(p["planes"]))
    return KernelLaunch("resize.cu", entry, grid, block, (x, out, p))


def _axis_launch(p: Any, x: Any, out: Any) -> KernelLaunch:
    entry = f"resize_axis<{CUDA_NUMBERS[x.dtype.name]}, {CUDA_NUMBERS[out.dtype.name]}>"
    grid, block = plane_grid(int(p["size"]), int(p["planes"]), _LANES)
    return KernelLaunch("resize.cu", entry, grid, block, (x, out, p))


def _axes(x: Any, out_shape: Sequence[int], resized: Sequence[ResizedAxis]) -> list[_Axis]:
    how = {axis.axis: axis for axis in resized}
    strides = [stride // x.dtype.itemsize for stride in x.strides]
    return [(extent, strides[i], how.get(i)) for i, extent in enumerate(out_shape)]


def one_launch(resized: Sequence[ResizedAxis], attrs: Attrs) -> bool:
    """Whether all axes are resized in one launch; else each has its own."""
    if attrs["mode"] == "nearest":
        return True
    narrow = all(axis.taps == _TAPS[attrs["mode"]] for axis in resized)
    return narrow and len(resized) <= _MIXED_AXES


def resize_launches(
    x: Any, out: Any, attrs: Attrs, between: Arrays
) -> Sequence[KernelLaunch] | None:
    """Return the launches of a node; `between` is the result of each axis but the last.

    None where the input has more separate runs of axes than the kernels take.
    """
    if not out.size:
        return ()
    resized = resized_axes(x.shape, attrs)
    if not resized:
        return copy_launches([(x, out)])
    if one_launch(resized, attrs):
        p = _resample(_axes(x, out.shape, resized), -1, out.dtype, attrs, last=True)
        if p is None:
            return None
        entry = f"resize_nearest<{CARRIERS[out.dtype.itemsize]}>"
        if attrs["mode"] != "nearest":
            taps = _TAPS[attrs["mode"]]
            entry = f"resize_interpolate<{CUDA_NUMBERS[out.dtype.name]}, {len(resized)}, {taps}>"
        return (_launch(entry, p, x, out),)
    launches, source = [], x
    for i, (axis, target) in enumerate(zip(resized, (*between, out), strict=True)):
        last = target is out
        # In the last launch the others are resized already, but still say what is outside.
        marked = (
            resized[: i + 1] if last and attrs["coordinates"] == "tf_crop_and_resize" else [axis]
        )
        p = _resample(_axes(source, target.shape, marked), axis.axis, out.dtype, attrs, last=last)
        if p is None:
            return None
        launches.append(_axis_launch(p, source, target))
        source = target
    return launches
