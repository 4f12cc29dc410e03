"""Pooling: the maximum or the mean over sliding windows.

A window's maximum or sum is taken one axis after the other (rows of taps, then columns): the work
for each output grows with the sum of the kernel's extents, not with their product. Padding is never
laid out: a tap only meets the outputs for which it lies inside the input. Channels are worked on in
blocks that fit the second-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    NUMBERS,
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
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, THREADS, grid_for, launch_all, nothing
from asyncnet_gpu.ops.windows import (
    PADS_DOC,
    STEPS_DOC,
    WINDOW_ATTRS,
    Window,
    check_spatial,
    make_window,
    spread,
)
from asyncnet_gpu.specs import TensorSpec, spec

_BLOCK_BYTES = 1 << 19

#: The struct `PoolLayout` of ``pool.cu``: three spatial axes, strides of the input in elements.
POOL_LAYOUT = np.dtype(
    [(name, np.int64) for name in ("size", "channels", "x_n", "x_c")]
    + [("x_stride", np.int64, (3,)), ("lowest", np.float64)]
    + [
        (name, np.int32, (3,))
        for name in ("extent", "kernel", "out", "stride", "dilation", "begin", "end")
    ]
    + [("count_padding", np.int32), ("pad", np.int32)],
    align=True,
)


def pool_window(x: Any, attrs: Attrs, *, where: str) -> Window:
    """Resolve the window of a spec or array (n, c, ...) or raise `ShapeError`."""
    n = check_spatial(len(x.shape), None, where=where, shape=x.shape)
    kernel = spread(attrs["kernel"], "kernel", n, 1, where=where)
    return make_window(
        x.shape[2:], kernel, strides=attrs["strides"], pads=attrs["pads"],
        dilations=attrs["dilations"], ceil_mode=bool(attrs["ceil_mode"]), where=where,
    )  # fmt: skip


def _make_infer(where: str) -> Callable[[Specs, Attrs], Specs]:
    def infer(ins: Specs, attrs: Attrs) -> Specs:
        window = pool_window(ins[0], attrs, where=where)
        return (TensorSpec((*ins[0].shape[:2], *window.out), ins[0].dtype),)

    return infer


def lowest(dtype: np.dtype[Any]) -> Any:
    """Return what no element of a dtype is below."""
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


# -- windows on the CPU ----------------------------------------------------------------------


def _channels_at_a_time(window: Window, channels: int, item: int) -> int:
    return max(1, min(channels, _BLOCK_BYTES // max(1, math.prod(window.extent) * item)))


def _stages(window: Window, channels: int, dtype: np.dtype[Any], *, keep_last: bool) -> Specs:
    """Return what is left of a block of channels after each axis; the last is the output itself."""
    ndim = len(window.out)
    n_stages = ndim if keep_last else ndim - 1
    return tuple(
        [
            TensorSpec((channels, *window.out[: i + 1], *window.extent[i + 1 :]), dtype)
            for i in range(n_stages)
        ]
    )


def _make_scratch(where: str, *, mean: bool) -> Callable[[Specs, Specs, Attrs, str], Specs]:
    def scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
        (x,) = ins
        if device_kind != "cpu" or not outs[0].size:
            return ()
        window = pool_window(x, attrs, where=where)
        wide = mean and x.dtype == np.float16
        dtype = np.dtype(np.float32) if wide else x.dtype
        channels = _channels_at_a_time(window, x.shape[1], dtype.itemsize)
        return _stages(window, channels, dtype, keep_last=wide)

    return scratch


def _reduce_axis(
    xp: Any, combine: Any, source: Any, target: Any, window: Window, axis: int, empty: Any
) -> list[Launch]:
    """Return the steps that reduce one spatial axis (`axis` + 1 of a block) tap by tap."""
    reduce = partial(_reduce_places, xp, combine, source, target, window, axis, empty)
    shifts = [there.start - here.start for _, here, there in window.taps(axis)]
    left, right = -min(shifts, default=0), max(shifts, default=0)
    extent = window.extent[axis]
    flat = (
        axis == len(window.out) - 1
        and window.strides[axis] == 1
        and window.out[axis] == extent > 2 * (left + right)
        and min(left, right) >= 0
        and len(shifts) > 1
        and source.flags.c_contiguous
        and target.flags.c_contiguous
    )
    if not flat:
        return reduce(slice(0, window.out[axis]))
    # All rows as one: a row is too short to be worth a loop of its own (1.6 to 3 times faster, rows
    # of 7 to 42). What thereby reaches from one row into the next are the outermost places, which
    # are then computed again.
    read, goal = source.reshape(-1), target.reshape(-1)
    end = goal.size - right
    places = goal[left:end]
    parts = [read[left + shift : end + shift] for shift in shifts]
    steps: list[Launch] = [partial(combine, parts[0], parts[1], out=places)]
    steps += [partial(combine, places, part, out=places) for part in parts[2:]]
    return steps + reduce(slice(0, left)) + reduce(slice(extent - right, extent))


def _reduce_places(
    xp: Any, combine: Any, source: Any, target: Any, window: Window, axis: int, empty: Any,
    places: slice,
) -> list[Launch]:  # fmt: skip
    """Return the steps for some places of the axis, each tap where it lies inside the input."""
    if places.start == places.stop:
        return []
    before = (slice(None),) * (axis + 1)
    full, others = [], []
    for _, here, there in window.taps(axis):
        first, last = max(here.start, places.start), min(here.stop, places.stop)
        if first >= last:
            continue
        start = there.start + (first - here.start) * there.step
        taken = source[(*before, slice(start, start + (last - first - 1) * there.step + 1,
                                       there.step))]  # fmt: skip
        if (first, last) == (places.start, places.stop):
            full.append(taken)
        else:
            others.append((target[(*before, slice(first, last))], taken))
    goal = target[(*before, places)]
    steps: list[Launch] = []
    if len(full) > 1:
        steps.append(partial(combine, full[0], full[1], out=goal))
    elif full:
        steps.append(partial(xp.copyto, goal, full[0]))
    else:
        steps.append(partial(xp.copyto, goal, empty))
    steps += [partial(combine, goal, read, out=goal) for read in full[2:]]
    return steps + [partial(combine, reached, read, out=reached) for reached, read in others]


def _bind_windows(
    xp: Any, combine: Any, x: Any, out: Any, window: Window, scratch: Arrays, empty: Any,
    divisor: Any,
) -> Launch:  # fmt: skip
    """Reduce block by block; `divisor` (None for maxima) ends the mean."""
    ndim = len(window.out)
    channels = _channels_at_a_time(window, x.shape[1], (scratch or [out])[0].dtype.itemsize)
    steps: list[Launch] = []
    for image in range(x.shape[0]):
        for first in range(0, x.shape[1], channels):
            block = slice(first, min(first + channels, x.shape[1]))
            stages = [stage[: block.stop - block.start] for stage in scratch]
            goal = out[image, block]
            if len(stages) < ndim:
                stages.append(goal)
            source = x[image, block]
            for axis, target in enumerate(stages):
                steps += _reduce_axis(xp, combine, source, target, window, axis, empty)
                source = target
            if divisor is not None:
                steps.append(partial(xp.divide, source, divisor, goal, casting="same_kind"))
    return launch_all(steps)


def _bind_max(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x,), (out,) = ins, outs
    if not out.size:
        return nothing
    window = pool_window(x, attrs, where="max_pool")
    if not scratch:
        channels = _channels_at_a_time(window, x.shape[1], x.dtype.itemsize)
        wanted = _stages(window, channels, x.dtype, keep_last=False)
        scratch = [xp.empty(s.shape, s.dtype) for s in wanted]
    return _bind_windows(xp, xp.maximum, x, out, window, scratch, lowest(x.dtype), None)


def tap_counts(window: Window, *, count_padding: bool) -> Any:
    """Return by how many elements each window's sum is divided: shape ``window.out``."""
    counts = np.ones((), np.int64)
    for axis, out in enumerate(window.out):
        low = -window.begin[axis] if count_padding else 0
        high = window.extent[axis] + (window.end[axis] if count_padding else 0)
        taps = np.arange(window.kernel[axis]) * window.dilations[axis] - window.begin[axis]
        places = np.arange(out)[:, None] * window.strides[axis] + taps
        inside = ((places >= low) & (places < high)).sum(1)
        counts = counts[..., None] * np.maximum(inside, 1)
    return counts


def _bind_average(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x,), (out,) = ins, outs
    if not out.size:
        return nothing
    window = pool_window(x, attrs, where="average_pool")
    wide = x.dtype == np.float16
    dtype = np.dtype(np.float32) if wide else x.dtype
    if not scratch:
        channels = _channels_at_a_time(window, x.shape[1], dtype.itemsize)
        wanted = _stages(window, channels, dtype, keep_last=wide)
        scratch = [xp.empty(s.shape, s.dtype) for s in wanted]
    counts = tap_counts(window, count_padding=bool(attrs["count_include_pad"]))
    uniform = counts.min() == counts.max()
    divisor = dtype.type(counts.flat[0]) if uniform else xp.asarray(counts.astype(dtype))
    return _bind_windows(xp, xp.add, x, out, window, scratch, 0, divisor)


# -- kernels ---------------------------------------------------------------------------------


def _three(numbers: Sequence[int], fill: int) -> list[int]:
    return [fill] * (3 - len(numbers)) + list(numbers)


def pool_layout(x: Any, out: Any, window: Window, *, count_padding: bool) -> Any:
    """Return the struct of ``pool.cu``; axes that are missing come first, with extent 1."""
    item = x.dtype.itemsize
    layout = np.zeros((), POOL_LAYOUT)
    layout["size"], layout["channels"] = out.size, x.shape[1]
    layout["x_n"], layout["x_c"] = x.strides[0] // item, x.strides[1] // item
    layout["x_stride"] = _three([s // item for s in x.strides[2:]], 0)
    layout["lowest"], layout["count_padding"] = lowest(x.dtype), int(count_padding)
    layout["extent"], layout["kernel"] = _three(window.extent, 1), _three(window.kernel, 1)
    layout["out"], layout["stride"] = _three(window.out, 1), _three(window.strides, 1)
    layout["dilation"] = _three(window.dilations, 1)
    layout["begin"], layout["end"] = _three(window.begin, 0), _three(window.end, 0)
    return layout


def _kernel_windows(
    name: str,
) -> Callable[[Arrays, Arrays, Attrs, Arrays], Sequence[KernelLaunch] | None]:
    def kernel(ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Sequence[KernelLaunch]:
        (x,), (out,) = ins, outs
        if not out.size:
            return ()
        window = pool_window(x, attrs, where=name)
        padding = bool(attrs.get("count_include_pad", False))
        layout = pool_layout(x, out, window, count_padding=padding)
        entry = f"{name}<{CUDA_NUMBERS[x.dtype.name]}>"
        grid = grid_for(out.size)
        return (KernelLaunch("pool.cu", entry, grid, (THREADS, 1, 1), (x, out, layout)),)

    return kernel


# -- references and definitions --------------------------------------------------------------


def _reference_windows(
    where: str, reduce: Callable[[Any, int], float]
) -> Callable[[Arrays, Attrs], tuple[Any, ...]]:
    """Walk over every output and tap; `reduce` gets the elements seen and the padded taps."""

    def reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
        x = np.asarray(ins[0], np.float64 if ins[0].dtype.kind == "f" else None)
        window = pool_window(x, attrs, where=where)
        out = np.empty((*x.shape[:2], *window.out), x.dtype)
        for image, channel, *position in np.ndindex(out.shape):
            seen, padding = [], 0
            for tap in np.ndindex(window.kernel):
                at = [
                    p * s + k * d - b
                    for p, s, k, d, b in zip(
                        position, window.strides, tap, window.dilations, window.begin, strict=True
                    )
                ]
                if all(0 <= i < e for i, e in zip(at, window.extent, strict=True)):
                    seen.append(x[(image, channel, *at)])
                elif all(
                    -b <= i < e + f
                    for i, e, b, f in zip(at, window.extent, window.begin, window.end, strict=True)
                ):
                    padding += 1
            counted = padding if attrs.get("count_include_pad") else 0
            out[(image, channel, *position)] = reduce(np.array(seen, x.dtype), counted)
        return (out,)

    return reference


def _mean(seen: Any, padding: int) -> float:
    return float(seen.sum() / max(1, len(seen) + padding))


def _largest(seen: Any, padding: int) -> Any:
    return seen.max() if len(seen) else lowest(seen.dtype)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    window = pool_window(ins[0], attrs, where="pool")
    return Cost(float(outs[0].size * sum(window.kernel)), float(ins[0].nbytes + outs[0].nbytes))


#: Attributes of every pooling.
POOL_ATTRS: dict[str, Any] = {"kernel": REQUIRED, **WINDOW_ATTRS, "ceil_mode": False}
_NAN = np.array([1.0, np.nan, 3.0, 4.0, 5.0, 2.0], np.float32).reshape(1, 1, 6)

#: Geometries that both kinds of window have: name, shape, attributes.
_GEOMETRIES: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
    ("1d", (2, 3, 9), {"kernel": 3, "strides": 2}),
    ("plain", (2, 3, 6, 7), {"kernel": (2, 3)}),
    ("halves", (1, 2, 8, 8), {"kernel": 2, "strides": 2}),
    ("pads", (2, 3, 7, 6), {"kernel": 3, "strides": 2, "pads": (1, 0, 1, 2)}),
    ("same", (1, 2, 7, 6), {"kernel": (3, 4), "strides": 2, "pads": "same"}),
    ("same_lower", (1, 2, 7, 6), {"kernel": 2, "pads": "same_lower"}),
    ("dilations", (1, 2, 9, 9), {"kernel": 3, "dilations": (2, 3), "pads": 1}),
    ("ceil", (1, 2, 6, 7), {"kernel": 3, "strides": 2, "ceil_mode": True}),
    ("ceil_pads", (1, 2, 6, 7), {"kernel": 2, "strides": 3, "pads": 1, "ceil_mode": True}),
    ("3d", (1, 2, 4, 5, 6), {"kernel": (2, 3, 2), "strides": (1, 2, 2), "pads": 1}),
    ("no_images", (0, 2, 4, 4), {"kernel": 2}),
    ("rows_as_one", (2, 3, 5, 8), {"kernel": 3, "pads": 1}),
    ("rows_as_one_lopsided", (1, 2, 3, 11), {"kernel": (1, 4), "pads": (0, 1, 0, 2)}),
    (
        "rows_as_one_dilated",
        (1, 2, 4, 13),
        {"kernel": 3, "dilations": (1, 2), "pads": (0, 2, 1, 2)},
    ),
    ("row_as_one", (2, 3, 12), {"kernel": 5, "pads": 2}),
    ("many_channels", (1, 70, 48, 48), {"kernel": 3, "strides": 2, "pads": 1}),
)


def _cases(rtol: float, atol: float, *, padding: bool) -> tuple[OpCase, ...]:
    made = [OpCase(n, (f32(*s),), a, rtol=rtol, atol=atol) for n, s, a in _GEOMETRIES]
    if padding:
        made += [
            OpCase(f"{n}_counted", (f32(*s),), {**a, "count_include_pad": True}, rtol, atol)
            for n, s, a in _GEOMETRIES
            if "pads" in a
        ]
    half = spec((2, 3, 6, 6), "float16")
    made += [
        OpCase("double", (spec((1, 2, 5, 5), "float64"),), {"kernel": 3}, rtol=1e-12, atol=1e-12),
        OpCase("half", (half,), {"kernel": 3, "pads": 1}, rtol=1e-3, atol=1e-3),
        OpCase("layer", (f32(1, 16, 56, 56),), {"kernel": 3, "strides": 2, "pads": 1},
               rtol=rtol, atol=atol, perf=True),
    ]  # fmt: skip
    return tuple(made)


_DOC = f"""{{what}} over sliding windows of 1 to 3 spatial axes.

Parameters
----------
x: (n, c, *spatial)
kernel
    Extent of the window on each axis; one number stands for all.
{STEPS_DOC}
{PADS_DOC} {{padding}}
ceil_mode
    True makes an output of the last, incomplete window, too.{{more}}

Returns
-------
(n, c, *out), same dtype.

Raises
------
ShapeError
    If the window is larger than the padded input.
"""

OPS = (
    Op(
        name="max_pool",
        kind="MaxPool",
        doc=_DOC.format(what="Maximum", padding="Padding never wins; NaN does.", more=""),
        n_inputs=(1, 1),
        attrs=POOL_ATTRS,
        infer=_make_infer("max_pool"),
        bind=_bind_max,
        kernel=_kernel_windows("max_pool"),
        reference=_reference_windows("max_pool", _largest),
        scratch=_make_scratch("max_pool", mean=False),
        cost=_cost,
        dtypes=NUMBERS,
        cases=(
            *_cases(0, 0, padding=False),
            OpCase("nan", (_NAN,), {"kernel": 3}, rtol=0, atol=0),
            OpCase("only_padding", (f32(1, 1, 3, 3),), {"kernel": 2, "pads": 3}, rtol=0, atol=0),
            OpCase("int64", (spec((1, 2, 5, 5), "int64"),), {"kernel": 2, "pads": 1},
                   rtol=0, atol=0),
            OpCase("uint8", (spec((1, 2, 5, 5), "uint8"),), {"kernel": 2, "strides": 2},
                   rtol=0, atol=0),
        ),
    ),
    Op(
        name="average_pool",
        kind="AveragePool",
        doc=_DOC.format(
            what="Mean", padding="Padding counts as 0.",
            more="\ncount_include_pad\n    True divides by taps in the padding, too; False by "
            "those inside the input.",
        ),
        n_inputs=(1, 1),
        attrs={**POOL_ATTRS, "count_include_pad": False},
        infer=_make_infer("average_pool"),
        bind=_bind_average,
        kernel=_kernel_windows("average_pool"),
        reference=_reference_windows("average_pool", _mean),
        scratch=_make_scratch("average_pool", mean=True),
        cost=_cost,
        dtypes=FLOATS,
        cases=_cases(1e-5, 1e-6, padding=True),
    ),
)  # fmt: skip
