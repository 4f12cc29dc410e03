"""Sequences and optionals: lists that exist while importing; in them are ordinary values."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.onnx.limits import MAX_NDIM
from asyncnet_gpu.onnx.nodes.shape import split_sizes
from asyncnet_gpu.ops.base import OnnxMapping


def _position(context: NodeContext, index: int, length: int) -> int:
    (at,) = context.known_ints(index, "position")
    if not -length <= at < length:
        context.fail("position", expected=f"{-length}..{length - 1}", got=at,
                     remedy="The file is broken.")  # fmt: skip
    return at % length


def _construct(context: NodeContext, node: Any) -> Any:
    return [*context.tensors()]


def _empty(context: NodeContext, node: Any) -> Any:
    return []


def _at(context: NodeContext, node: Any) -> Any:
    items = context.sequence()
    return items[_position(context, 1, len(items))]


def _length(context: NodeContext, node: Any) -> Any:

    return np.asarray(len(context.sequence()), np.int64)


def _insert(context: NodeContext, node: Any) -> Any:
    items = [*context.sequence()]
    at = len(items)
    if context.has(2) and context.known_ints(2, "position") != (len(items),):  # behind the last
        at = _position(context, 2, len(items))
    return [*items[:at], context.x(1), *items[at:]]


def _erase(context: NodeContext, node: Any) -> Any:
    items = [*context.sequence()]
    at = _position(context, 1, len(items)) if context.has(1) else len(items) - 1
    return [*items[:at], *items[at + 1 :]]


def _join(context: NodeContext, node: Any) -> Any:
    items, axis = context.sequence(), context.attr_int("axis")
    if not context.attr_int("new_axis", 0):
        return context.result("concat", *items, axis=axis)
    axis = axis + len(items[0].shape) + 1 if axis < 0 else axis
    parts = [context.emit("unsqueeze", item, axes=(axis,)) for item in items]
    return context.result("concat", *parts, axis=axis)


def _split(context: NodeContext, node: Any) -> Any:
    data = context.x()
    axis = context.attr_int("axis", 0) % max(1, len(data.shape))
    context.axes(data, "input", 1, MAX_NDIM)
    extent = data.shape[axis]
    keeps = True
    if context.has(1):
        sizes = context.known_ints(1, "split")
        if not context.known(1, "split").shape:  # a single size for all parts
            size = max(1, sizes[0])
            context.importer.budget.loop(extent // size, context.where)
            sizes = tuple(min(size, extent - at) for at in range(0, extent, size))
    else:
        keeps = bool(context.attr_int("keepdims", 1))
        context.importer.budget.loop(extent, context.where)
        sizes = split_sizes(context, extent, extent)
    context.importer.budget.loop(len(sizes), context.where)
    if not sizes:
        return []
    parts = context.emit("split", data, axis=axis, sizes=sizes)
    parts = [*parts] if isinstance(parts, tuple) else [parts]
    return parts if keeps else [context.emit("squeeze", p, axes=(axis,)) for p in parts]


def _sequence_map(context: NodeContext, node: Any) -> Any:
    from asyncnet_gpu.onnx.nodes.control import inline

    body = context.attr_graph("body")
    names = [entry.name for entry in body.input]
    items = context.sequence()
    context.importer.budget.loop(len(items), context.where)
    rows = []
    if len(names) != context.n_inputs:
        context.fail("attribute 'body'", expected=f"{context.n_inputs} inputs", got=len(names),
                     remedy="The file is broken.")  # fmt: skip
    for i in range(len(items)):
        values = [context.value(k) for k in range(context.n_inputs)]
        given = [v[i] if isinstance(v, list) else v for v in values]
        rows.append(inline(context, body, dict(zip(names, given, strict=True))))
    return tuple([row[k] for row in rows] for k in range(len(body.output)))


def _optional(context: NodeContext, node: Any) -> Any:
    return (context.value(0),)


def _has_element(context: NodeContext, node: Any) -> Any:

    return np.asarray(context.value(0) is not None)


NODES = {
    "ConcatFromSequence": OnnxMapping(since=11, build=_join),
    "Optional": OnnxMapping(since=15, build=_optional),
    "OptionalGetElement": OnnxMapping(since=15, build=_optional),
    "OptionalHasElement": OnnxMapping(since=15, build=_has_element),
    "SequenceAt": OnnxMapping(since=11, build=_at),
    "SequenceConstruct": OnnxMapping(since=11, build=_construct),
    "SequenceEmpty": OnnxMapping(since=11, build=_empty),
    "SequenceErase": OnnxMapping(since=11, build=_erase),
    "SequenceInsert": OnnxMapping(since=11, build=_insert),
    "SequenceLength": OnnxMapping(since=11, build=_length),
    "SequenceMap": OnnxMapping(since=17, build=_sequence_map),
    "SplitToSequence": OnnxMapping(since=11, build=_split),
}
