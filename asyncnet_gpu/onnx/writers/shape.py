"""Operators on shapes: extents, axes and bounds become constant inputs."""

from __future__ import annotations

import numpy as np

from asyncnet_gpu.onnx.export import Writer
from asyncnet_gpu.ops.checks import as_ints


def _reshape(w: Writer) -> None:
    shape = w.outs[0].shape
    # Without allowzero a 0 means "as before".
    zero = {"allowzero": 1} if 0 in shape else {}
    w.node("Reshape", [*w.inputs, w.ints(shape, "shape")], w.outputs, **zero)


def _expand(w: Writer) -> None:
    w.node("Expand", [*w.inputs, w.ints(w.outs[0].shape, "shape")], w.outputs)


def _axes(op_type: str, w: Writer) -> None:
    axes = w.attrs["axes"]
    given = [] if axes is None else [w.ints(as_ints(axes, "axes", where=op_type), "axes")]
    w.node(op_type, [*w.inputs, *given], w.outputs)


def _slice(w: Writer) -> None:
    starts = as_ints(w.attrs["starts"], "starts", where="slice")
    ends = as_ints(w.attrs["ends"], "ends", where="slice")
    if not starts:  # ONNX does not say what a Slice along no axis is
        w.node("Identity", w.inputs, w.outputs)
        return
    axes = range(len(starts)) if w.attrs["axes"] is None else w.attrs["axes"]
    axes = as_ints(tuple(axes) if isinstance(axes, range) else axes, "axes", where="slice")
    steps = w.attrs["steps"]
    given = [w.ints(starts, "starts"), w.ints(ends, "ends"), w.ints(axes, "axes")]
    if steps is not None:
        given.append(w.ints(as_ints(steps, "steps", where="slice"), "steps"))
    w.node("Slice", [*w.inputs, *given], w.outputs)


def _split(w: Writer) -> None:
    axis = w.attrs["axis"]
    sizes = w.ints([s.shape[axis] for s in w.outs], "sizes")
    w.node("Split", [*w.inputs, sizes], w.outputs, axis=axis)


def _stack(w: Writer) -> None:
    axis = w.ints([w.attrs["axis"]], "axis")
    parts = [w.step("Unsqueeze", [x, axis], w.ins[0].dtype) for x in w.inputs]
    w.node("Concat", parts, w.outputs, axis=w.attrs["axis"])


def _tile(w: Writer) -> None:
    repeats = as_ints(w.attrs["repeats"], "repeats", where="tile")
    if len(repeats) != len(w.ins[0].shape):
        w.fail(f"repeats={repeats}", "Give one number for each axis.")
    w.node("Tile", [*w.inputs, w.ints(repeats, "repeats")], w.outputs)


def _transpose(w: Writer) -> None:
    rank = len(w.ins[0].shape)
    axes = w.attrs["axes"]
    perm = tuple(reversed(range(rank))) if axes is None else as_ints(axes, "axes", where="perm")
    w.node("Transpose", w.inputs, w.outputs, perm=[a % rank for a in perm])


def _pad(w: Writer) -> None:
    rank = len(w.ins[0].shape)
    pads = as_ints(w.attrs["pads"], "pads", where="pad")
    axes = w.attrs["axes"]
    chosen = tuple(range(rank)) if axes is None else as_ints(axes, "axes", where="pad")
    if len(pads) != 2 * len(chosen):
        w.fail(f"pads={pads}", "Give all widths before and then all widths after.")
    given = [w.ints(pads, "pads"), ""]
    if w.attrs["mode"] == "constant":
        given[1] = w.constant(np.asarray(w.attrs["value"], w.ins[0].dtype), "value")
    if axes is not None:
        given.append(w.ints(chosen, "axes"))
    w.node("Pad", [*w.inputs, *given], w.outputs, mode=w.attrs["mode"])


WRITERS = {
    "broadcast_to": _expand,
    "expand": _expand,
    "pad": _pad,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "squeeze": lambda w: _axes("Squeeze", w),
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unsqueeze": lambda w: _axes("Unsqueeze", w),
}
