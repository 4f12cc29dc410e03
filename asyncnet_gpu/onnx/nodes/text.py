"""Strings: known when compiling, since no device computes with them; what is made of them is, too.

A text input is part of the signature (see `ports`), so that every node here sees an array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.onnx.nodes.constants import texts
from asyncnet_gpu.ops.base import OnnxMapping

Array = np.ndarray[Any, Any]


def is_text(value: Any) -> bool:
    """Whether a value is an array of strings."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "O"


def known_texts(context: NodeContext, index: int) -> Array:
    """Return an input, which must be strings."""
    value = context.known(index, "text")
    if not is_text(value):
        context.fail(f"input {index}", expected="strings", got=value.dtype,
                     remedy="The file is broken.")  # fmt: skip
    return value


def _concat(context: NodeContext, node: Any) -> Any:
    a, b = known_texts(context, 0), known_texts(context, 1)
    shape = np.broadcast_shapes(a.shape, b.shape)
    context.importer.budget.tensor(shape, 8, context.where)
    pairs = list(zip(np.broadcast_to(a, shape).flat, np.broadcast_to(b, shape).flat, strict=True))
    # Forty texts, each twice the one before, would be a terabyte.
    context.importer.budget.constant(sum([len(x) + len(y) + 8 for x, y in pairs]), context.where)
    return texts(tuple([x + y for x, y in pairs])).reshape(shape)


def _split(context: NodeContext, node: Any) -> Any:
    x = known_texts(context, 0)
    delimiter = context.attr_str("delimiter", "") or None
    most = context.attr_int("maxsplit", -1)
    parts = [text.split(delimiter, most) for text in x.flat]
    width = max([len(p) for p in parts], default=0)
    context.importer.budget.constant(
        context.importer.budget.tensor((*x.shape, width), 8, context.where), context.where
    )
    padded = [text for p in parts for text in (*p, *[""] * (width - len(p)))]
    counts = np.array([len(p) for p in parts], np.int64).reshape(x.shape)
    return texts(tuple(padded)).reshape(*x.shape, width), counts


def _normalize(context: NodeContext, node: Any) -> Any:
    x = known_texts(context, 0)
    stop = set(context.attr_strs("stopwords", ()))
    change = context.attr_str("case_change_action", "NONE")
    if change not in ("NONE", "LOWER", "UPPER") or x.ndim not in (1, 2):
        context.fail("attribute 'case_change_action'", expected="NONE, LOWER or UPPER of a vector",
                     got=f"{change} of {x.ndim} axes", remedy="The file is broken.")  # fmt: skip
    if context.attr_int("is_case_sensitive", 0):
        kept = [text for text in x.flat if text not in stop]
    else:
        lower = {text.lower() for text in stop}
        kept = [text for text in x.flat if text.lower() not in lower]
    cased = [text if change == "NONE" else getattr(text, change.lower())() for text in kept]
    made = texts(tuple(cased or [""]))
    return made if x.ndim == 1 else made.reshape(1, -1)


def _equal(context: NodeContext, node: Any) -> Any:
    a, b = context.x(0), context.x(1)
    if is_text(a) and is_text(b):
        return np.asarray(known_texts(context, 0) == known_texts(context, 1), bool)
    return context.result("equal", a, b)


NODES = {
    "Equal": OnnxMapping(since=7, build=_equal),
    "StringConcat": OnnxMapping(since=20, build=_concat),
    "StringNormalizer": OnnxMapping(since=10, build=_normalize),
    "StringSplit": OnnxMapping(since=20, build=_split),
}
