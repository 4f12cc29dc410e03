"""Shape operators: what ONNX gives as an input, a shape or list of axes, is an attribute here."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


def _listed(context: NodeContext, index: int, name: str, default: Any = ...) -> Any:
    """Return integers given as an attribute in older operator sets and as an input in newer."""
    if context.has_attr(name):
        return context.attr_ints(name)
    if context.has(index):
        return context.known_ints(index, name)
    return context.attr_ints(name, default)


def _reshape(context: NodeContext, node: Any) -> Any:
    data = context.x()
    wanted = list(_listed(context, 1, "shape"))
    if not context.attr_int("allowzero", 0):
        for i, extent in enumerate(wanted):
            if extent == 0 and i < len(data.shape):
                wanted[i] = data.shape[i]
    return context.result("reshape", data, shape=tuple(wanted))


def _squeeze(context: NodeContext, node: Any) -> Any:
    return context.result("squeeze", context.x(), axes=_listed(context, 1, "axes", None))


def _unsqueeze(context: NodeContext, node: Any) -> Any:
    return context.result("unsqueeze", context.x(), axes=_listed(context, 1, "axes"))


def _transpose(context: NodeContext, node: Any) -> Any:
    return context.result("transpose", context.x(), axes=context.attr_ints("perm", None))


def _slice(context: NodeContext, node: Any) -> Any:
    return context.result(
        "slice", context.x(), starts=_listed(context, 1, "starts"),
        ends=_listed(context, 2, "ends"), axes=_listed(context, 3, "axes", None),
        steps=_listed(context, 4, "steps", None),
    )  # fmt: skip


def split_sizes(context: NodeContext, extent: int, count: int) -> tuple[int, ...]:
    """Return extents of `count` parts of an axis, as equal as can be, the last one smaller."""
    size = -(-extent // max(1, count))
    sizes = [max(0, min(size, extent - i * size)) for i in range(count)]
    return tuple(sizes)


def _split(context: NodeContext, node: Any) -> Any:
    data, axis = context.x(), context.attr_int("axis", 0)
    sizes = _listed(context, 1, "split", None)
    if sizes is None:
        count = context.attr_int("num_outputs", context.n_outputs)
        if count != context.n_outputs or not -len(data.shape) <= axis < len(data.shape):
            context.fail("attribute 'num_outputs'", expected=context.n_outputs, got=count,
                         remedy="The file is broken.")  # fmt: skip
        sizes = split_sizes(context, data.shape[axis], count)
    return context.result("split", data, axis=axis, sizes=sizes)


def _expand(context: NodeContext, node: Any) -> Any:
    return context.result("expand", context.x(), shape=context.known_ints(1, "shape"))


def _tile(context: NodeContext, node: Any) -> Any:
    if context.opset < 6:
        data, axis = context.x(), int(context.number(2, "axis"))
        repeats = [1] * len(data.shape)
        repeats[axis] = int(context.number(1, "tiles"))
        return context.result("tile", data, repeats=tuple(repeats))
    return context.result("tile", context.x(), repeats=context.known_ints(1, "repeats"))


def _pad(context: NodeContext, node: Any) -> Any:
    data = context.x()
    if context.has_attr("paddings"):
        pads = context.attr_ints("paddings")
    else:
        pads = _listed(context, 1, "pads")
    value: Any = context.attr_float("value", 0.0)
    if context.has(2):
        value = context.known(2, "constant_value")
        if value.size != 1:
            context.fail("constant_value", expected="one value", got=list(value.shape),
                         remedy="The file is broken.")  # fmt: skip
        value = value.reshape(())[()]
    axes = context.known_ints(3, "axes") if context.has(3) else None
    mode = context.attr_str("mode", "constant")
    return context.result("pad", data, pads=pads, mode=mode, value=value, axes=axes)


def _concat(context: NodeContext, node: Any) -> Any:
    return context.result("concat", *context.tensors(), axis=context.attr_int("axis", 1))


def _block_size(context: NodeContext) -> int:
    block: int = context.attr_int("blocksize")
    if not 0 < block < 2**31:
        context.fail("attribute 'blocksize'", expected="a positive number", got=block,
                     remedy="The file is broken.")  # fmt: skip
    return block


def _depth_to_space(context: NodeContext, node: Any) -> Any:
    data, block = context.x(), _block_size(context)
    context.axes(data, "input", 3, 5)
    batch, channels, *space = data.shape
    mode = context.attr_str("mode", "DCR")
    n = len(space)
    inner = channels // max(1, block**n)
    blocks = [block] * n
    if mode == "DCR":  # blocks are the slow part of the channels
        shape = (batch, *blocks, inner, *space)
        order = [0, n + 1]
        for i in range(n):
            order += [n + 2 + i, 1 + i]
    else:
        shape = (batch, inner, *blocks, *space)
        order = [0, 1]
        for i in range(n):
            order += [n + 2 + i, 2 + i]
    made = context.emit("transpose", context.emit("reshape", data, shape=shape), axes=tuple(order))
    wanted = (batch, inner, *[extent * block for extent in space])
    return context.result("reshape", made, shape=wanted)


def _space_to_depth(context: NodeContext, node: Any) -> Any:
    data, block = context.x(), _block_size(context)
    context.axes(data, "input", 4)
    batch, channels, height, width = data.shape
    shape = (batch, channels, height // block, block, width // block, block)
    axes = (0, 3, 5, 1, 2, 4)
    if context.attr_str("mode", "DCR") == "CRD":
        axes = (0, 1, 3, 5, 2, 4)
    made = context.emit("transpose", context.emit("reshape", data, shape=shape), axes=axes)
    wanted = (batch, channels * block * block, height // block, width // block)
    return context.result("reshape", made, shape=wanted)


def _center_crop_pad(context: NodeContext, node: Any) -> Any:
    data = context.x()
    wanted = context.known_ints(1, "shape")
    axes = context.attr_ints("axes", tuple(range(len(data.shape))))
    rank = len(data.shape)
    if len(axes) != len(wanted) or not all(-rank <= a < rank for a in axes):
        context.fail("attribute 'axes'", expected=f"{len(wanted)} of {rank} axes", got=axes[:20],
                     remedy="The file is broken.")  # fmt: skip
    axes = [a % rank for a in axes]
    for axis, extent in zip(axes, wanted, strict=True):
        have = data.shape[axis]
        if have > extent:
            start = (have - extent) // 2
            data = context.emit(
                "slice", data, starts=(start,), ends=(start + extent,), axes=(axis,)
            )
        elif have < extent:
            before = (extent - have) // 2
            data = context.emit("pad", data, pads=(before, extent - have - before), axes=(axis,))
    return context.result("identity", data)


def _reverse_sequence(context: NodeContext, node: Any) -> Any:
    data = context.x()
    lengths = context.known_ints(1, "sequence_lens")
    time, batch = context.attr_int("time_axis", 0), context.attr_int("batch_axis", 1)
    rows = []
    for i, length in enumerate(lengths):
        row = context.emit("slice", data, starts=(i,), ends=(i + 1,), axes=(batch,))
        extent = row.shape[time]
        head = context.emit("slice", row, starts=(length - 1,), ends=(-extent - 1,), axes=(time,),
                            steps=(-1,))  # fmt: skip
        tail = context.emit("slice", row, starts=(length,), ends=(extent,), axes=(time,))
        rows.append(context.emit("concat", head, tail, axis=time) if length else row)
    return context.result("concat", *rows, axis=batch)


def _flatten(context: NodeContext, node: Any) -> Any:
    return context.result("flatten", context.x(), axis=context.attr_int("axis", 1))


def _bit_cast(context: NodeContext, node: Any) -> Any:
    from asyncnet_gpu.onnx.tensors import element_dtype

    dtype = element_dtype(context.attr_int("to"), context.where)
    data = context.x()
    if np.dtype(data.dtype).itemsize != dtype.itemsize:
        context.fail("attribute 'to'", expected=f"{np.dtype(data.dtype).itemsize} bytes",
                     got=dtype.name, remedy="The file is broken.")  # fmt: skip
    return context.result("bit_cast", data, dtype=dtype.name)


NODES = {
    "BitCast": OnnxMapping(since=26, build=_bit_cast),
    "CenterCropPad": OnnxMapping(since=18, build=_center_crop_pad),
    "Concat": OnnxMapping(build=_concat),
    "DepthToSpace": OnnxMapping(build=_depth_to_space),
    "Expand": OnnxMapping(since=8, build=_expand),
    "Flatten": OnnxMapping(build=_flatten),
    "Pad": OnnxMapping(build=_pad),
    "Reshape": OnnxMapping(build=_reshape),
    "ReverseSequence": OnnxMapping(since=10, build=_reverse_sequence),
    "Slice": OnnxMapping(build=_slice),
    "SpaceToDepth": OnnxMapping(build=_space_to_depth),
    "Split": OnnxMapping(build=_split),
    "Squeeze": OnnxMapping(build=_squeeze),
    "Tile": OnnxMapping(build=_tile),
    "Transpose": OnnxMapping(build=_transpose),
    "Unsqueeze": OnnxMapping(build=_unsqueeze),
}
