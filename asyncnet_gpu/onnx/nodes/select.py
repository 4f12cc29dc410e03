"""Nodes whose result has a shape that depends on data: possible where the data are known.

That is the case for constants (exporters write such nodes into shape arithmetic) and for small
inputs, whose values become part of the signature. For what a run computes it is refused: shapes
are static in a plan.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping


def _non_zero(context: NodeContext, node: Any) -> Any:
    x = np.atleast_1d(context.known(0, "what is not zero"))
    return np.asarray(np.nonzero(x), np.int64)


def _check_axis(context: NodeContext, axis: int, value: Any) -> None:
    rank = len(value.shape)
    if not -rank <= axis < rank:
        context.fail("attribute 'axis'", expected=f"{-rank}..{rank - 1}", got=axis,
                     remedy="The file is broken.")  # fmt: skip


def _compress(context: NodeContext, node: Any) -> Any:
    data = context.x(0)
    keep = np.flatnonzero(context.known(1, "condition"))
    axis = context.attr_int("axis", None)
    if axis is None:
        data, axis = context.emit("reshape", data, shape=(-1,)), 0
    _check_axis(context, axis, data)
    if keep.size and keep[-1] >= data.shape[axis]:
        context.fail("condition", expected=f"at most {data.shape[axis]} elements",
                     got=int(keep[-1]) + 1, remedy="The file is broken.")  # fmt: skip
    return context.result("gather", data, keep, axis=axis)


def _unique(context: NodeContext, node: Any) -> Any:
    x, axis = context.known(0, "number of different elements"), context.attr_int("axis", None)
    if axis is not None:
        _check_axis(context, axis, x)
    found, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not context.attr_int("sorted", 1):
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        found = np.take(found, order, 0 if axis is None else axis)
        first, inverse, counts = first[order], rank[inverse], counts[order]
    return (found, *[v.astype(np.int64) for v in (first, inverse, counts)])


def _corners(boxes: Any, centred: bool) -> Any:
    if centred:
        x, y, width, height = boxes.T
        boxes = np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], 1)
    return np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]),
                           np.maximum(boxes[:, :2], boxes[:, 2:])], 1)  # fmt: skip


def _overlap(box: Any, others: Any) -> Any:
    """Return the intersection over the union of a box with others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), 1)
    areas = [np.prod(b[..., 2:] - b[..., :2], -1) for b in (box, others)]
    union = areas[0] + areas[1] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _kept(boxes: Any, scores: Any, most: int, overlap: float, least: float) -> list[int]:
    order = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > least]
    kept: list[int] = []
    while order and len(kept) < most:
        best = order.pop(0)
        kept.append(best)
        if order:
            close = _overlap(boxes[best], boxes[order]) > overlap
            order = [i for i, c in zip(order, close, strict=True) if not c]
    return kept


def _non_max_suppression(context: NodeContext, node: Any) -> Any:
    boxes, scores = context.known(0, "number of boxes"), context.known(1, "number of boxes")
    context.axes(boxes, "boxes", 3)
    context.axes(scores, "scores", 3)
    count, most_work = boxes.shape[1], context.importer.budget.limits.max_fold_flops
    if boxes.shape[2] != 4 or (scores.shape[0], scores.shape[2]) != boxes.shape[:2]:
        context.fail("boxes and scores", expected="(batch, boxes, 4) and (batch, classes, boxes)",
                     got=f"{list(boxes.shape)} and {list(scores.shape)}",
                     remedy="The file is broken.")  # fmt: skip
    if scores.shape[0] * scores.shape[1] * count**2 > most_work:
        context.fail("number of boxes", expected=f"at most {most_work:g} comparisons", got=count,
                     remedy="Suppress after the net instead.")  # fmt: skip

    def number(index: int, default: float) -> Any:
        return context.number(index, f"input {index}") if context.has(index) else default

    most, overlap = int(number(2, 0)), float(number(3, 0.0))
    least = float(number(4, -np.inf))
    centred = bool(context.attr_int("center_point_box", 0))
    rows = []
    for b in range(boxes.shape[0]):
        corners = _corners(boxes[b], centred)
        for c in range(scores.shape[1]):
            rows += [(b, c, i) for i in _kept(corners, scores[b, c], most, overlap, least)]
    return np.asarray(rows, np.int64).reshape(-1, 3)


NODES = {
    "Compress": OnnxMapping(since=9, build=_compress),
    "NonMaxSuppression": OnnxMapping(since=10, build=_non_max_suppression),
    "NonZero": OnnxMapping(since=9, build=_non_zero),
    "Unique": OnnxMapping(since=11, build=_unique),
}
