"""Encoders of classical machine learning: counts of n-grams, labels, thresholds, columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.blob import Blob
from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.onnx.nodes.constants import texts
from asyncnet_gpu.onnx.nodes.text import is_text
from asyncnet_gpu.ops.base import OnnxMapping

Array = np.ndarray[Any, Any]


# -- n-grams -------------------------------------------------------------------------------------


def _numbered(context: NodeContext) -> tuple[Any, Array]:
    """Return the input as a matrix of numbers and the pool in the same numbers."""
    x = context.x()
    if context.has_attr("pool_strings"):
        words = list(context.attr_strs("pool_strings"))
        number = {word: i for i, word in reversed(list(enumerate(words)))}
        known = context.known_value(x, "text")
        x = np.array([number.get(t, -1) for t in known.flat], np.int64).reshape(known.shape)
        return x, np.array([number[word] for word in words], np.int64)
    pool = np.asarray(context.attr_ints("pool_int64s"), np.int64)
    if is_text(x):
        context.fail("attribute 'pool_strings'", expected="words", got="none",
                     remedy="The file is broken.")  # fmt: skip
    return context.emit("cast", x, dtype="int64"), pool


def _count_grams(context: NodeContext, x: Any, grams: Array, skips: int) -> Any:
    """Count every n-gram (rows of `grams`) in every row of x, with up to `skips` left out."""
    n, total = grams.shape[1], None
    for skip in range(skips + 1 if n > 1 else 1):
        starts = x.shape[1] - (n - 1) * (skip + 1)
        if starts <= 0:
            break
        places = np.arange(starts)[:, None] + np.arange(n) * (skip + 1)
        windows = context.emit("gather", x, places, axis=1)
        same = context.emit("equal", context.emit("unsqueeze", windows, axes=(2,)), grams)
        whole = context.emit("reduce_min", context.emit("cast", same, dtype="int32"), axes=(-1,))
        counts = context.emit("reduce_sum", context.emit("cast", whole, dtype="float32"), axes=(1,))
        total = counts if total is None else context.emit("add", total, counts)
    return np.zeros((x.shape[0], len(grams)), np.float32) if total is None else total


def _tf_idf(context: NodeContext, node: Any) -> Any:
    x, pool = _numbered(context)
    columns = np.asarray(context.attr_ints("ngram_indexes"), np.int64)
    begins = [*context.attr_ints("ngram_counts"), len(pool)]
    low, high = context.attr_int("min_gram_length"), context.attr_int("max_gram_length")
    mode = context.attr_str("mode")
    rows = [len(range(begins[n - 1], begins[n], n)) for n in range(1, len(begins))]
    if mode not in ("TF", "IDF", "TFIDF") or sum(rows) != len(columns) or columns.min() < 0:
        context.fail("attributes", expected="one column for each n-gram of the pool",
                     got=f"{sum(rows)} n-grams, {len(columns)} columns, mode {mode}",
                     remedy="The file is broken.")  # fmt: skip
    vector = len(x.shape) == 1
    if vector:
        x = context.emit("unsqueeze", x, axes=(0,))
    width = int(columns.max()) + 1
    context.importer.budget.constant(
        context.importer.budget.tensor((len(columns), width), 4, context.where), context.where
    )
    places = np.zeros((len(columns), width), np.float32)
    weights = np.asarray(context.attr_floats("weights", (1.0,) * len(columns)), np.float32)
    places[np.arange(len(columns)), columns] = 1.0 if mode == "TF" else weights
    found = []
    for n, count in enumerate(rows, 1):
        grams = pool[begins[n - 1] : begins[n]].reshape(count, n)
        if low <= n <= high and count:
            found.append(_count_grams(context, x, grams, context.attr_int("max_skip_count")))
        else:
            found.append(np.zeros((x.shape[0], count), np.float32))
    counts = context.emit("concat", *found, axis=1)
    if mode == "IDF":
        counts = context.emit("minimum", counts, np.asarray(1, np.float32))
    made = context.emit("matmul", counts, places)
    return context.result("reshape", made, shape=(width,) if vector else (x.shape[0], width))


# -- labels, thresholds, columns -------------------------------------------------------------------


def _listed(context: NodeContext, what: str) -> Array:
    """Return the keys or values of a label encoder."""
    for kind, dtype in (("int64s", np.int64), ("floats", np.float32)):
        if context.has_attr(f"{what}_{kind}"):
            return np.asarray(context.plain(f"{what}_{kind}"), dtype)
    if context.has_attr(f"{what}_strings"):
        return texts(context.attr_strs(f"{what}_strings"))
    made: Array = context.attr_tensor(f"{what}_tensor")
    return made.reshape(-1)


def _default(context: NodeContext, values: Array) -> Any:
    if context.has_attr("default_tensor"):
        return context.attr_tensor("default_tensor").reshape(-1)[0]
    if values.dtype.kind == "O":
        return context.attr_str("default_string", "_Unused")
    if values.dtype.kind == "f":
        return context.attr_float("default_float", -0.0)
    return context.attr_int("default_int64", -1)


def _label_encoder(context: NodeContext, node: Any) -> Any:
    x, keys, values = context.x(), _listed(context, "keys"), _listed(context, "values")
    if len(keys) != len(values) or not len(keys):
        got = f"{len(values)} for {len(keys)}"
        context.fail("attributes", expected="as many values as keys", got=got,
                     remedy="The file is broken.")  # fmt: skip
    default = _default(context, values)
    if is_text(keys) or is_text(values) or not isinstance(x, Blob):
        known = context.known_value(x, "label")
        pairs = zip(reversed(keys.tolist()), reversed(list(values)), strict=True)
        number = dict(pairs)
        found = [number.get(key, default) for key in known.reshape(-1).tolist()]
        if is_text(values):
            return texts(tuple(found)).reshape(known.shape)
        return np.array(found).astype(values.dtype).reshape(known.shape)
    hit = context.emit("equal", context.emit("unsqueeze", x, axes=(len(x.shape),)),
                       keys.astype(x.dtype))  # fmt: skip
    hits = context.emit("cast", hit, dtype="int32")
    place = context.emit("argmax", hits, axis=-1)
    some = context.emit("cast", context.emit("reduce_max", hits, axes=(-1,)), dtype="bool")
    value = context.emit("gather", values, place, axis=0)
    return context.result("where", some, value, np.asarray(default).astype(values.dtype))


def _binarizer(context: NodeContext, node: Any) -> Any:
    x = context.x()
    limit = np.asarray(context.attr_float("threshold", 0.0)).astype(x.dtype)
    return context.result("cast", context.emit("greater", x, limit), dtype=np.dtype(x.dtype).name)


def _feature_extractor(context: NodeContext, node: Any) -> Any:
    x, places = context.x(0), context.x(1)
    if len(x.shape) == 1:
        x = context.emit("unsqueeze", x, axes=(0,))
    flat = context.emit("reshape", places, shape=(-1,))
    return context.result("gather", x, flat, axis=len(x.shape) - 1)


NODES = {
    "TfIdfVectorizer": OnnxMapping(since=9, build=_tf_idf),
    "ai.onnx.ml::ArrayFeatureExtractor": OnnxMapping(build=_feature_extractor),
    "ai.onnx.ml::Binarizer": OnnxMapping(build=_binarizer),
    "ai.onnx.ml::LabelEncoder": OnnxMapping(since=2, build=_label_encoder),
}
