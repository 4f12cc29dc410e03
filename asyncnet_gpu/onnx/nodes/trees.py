"""Ensembles of decision trees as tensors: every sample walks all trees at once, level by level.

Nodes and leaves have one numbering, the leaves behind the nodes; a leaf leads to itself, so that
after as many steps as the deepest tree has levels every walk stands on a leaf.

Source: S. Nakandala and others, *A tensor compiler for unified machine learning prediction
serving*, 2020 (section 4.1, tree traversal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping

Array = np.ndarray[Any, Any]

_MODES = ("less_equal", "less", "greater_equal", "greater", "equal", "not_equal")
_MEMBER = len(_MODES)
_AGGREGATES = ("reduce_mean", "reduce_sum", "reduce_min", "reduce_max")


@dataclass
class _Trees:
    """Tables by number of the node; leaves follow the nodes."""

    features: Array
    splits: Array
    modes: Array
    yes: Array
    no: Array
    missing: Array
    roots: Array
    members: list[Array]
    targets: Array
    weights: Array

    @property
    def n_nodes(self) -> int:
        """Nodes that are no leaves."""
        return len(self.modes)


def _ints(context: NodeContext, name: str, size: int, high: int) -> Array:
    """Return an attribute of `size` integers from 0 to below `high`."""
    values = np.asarray(context.attr_ints(name, (0,) * size), np.int64)
    if values.shape != (size,) or (size and not (values.min() >= 0 and values.max() < high)):
        context.fail(f"attribute {name!r}", expected=f"{size} numbers below {high}",
                     got=f"{values.shape[0]} numbers", remedy="The file is broken.")  # fmt: skip
    return values


def _children(context: NodeContext, which: str, size: int, n_leaves: int) -> Array:
    is_leaf = _ints(context, f"nodes_{which}leafs", size, 2) > 0
    ids = _ints(context, f"nodes_{which}nodeids", size, max(size, n_leaves))
    limit = np.where(is_leaf, n_leaves, size)
    if (ids >= limit).any():
        context.fail(f"attribute 'nodes_{which}nodeids'", expected="nodes and leaves that exist",
                     got=int(ids.max()), remedy="The file is broken.")  # fmt: skip
    return np.where(is_leaf, ids + size, ids)


def _members(context: NodeContext, count: int) -> list[Array]:
    """Return the set of each node that asks for membership; NaN ends a set."""
    if not count:
        return []
    values = np.asarray(context.attr_tensor("membership_values")).reshape(-1)
    ends = np.flatnonzero(np.isnan(values))
    if len(ends) != count:
        context.fail("attribute 'membership_values'", expected=f"{count} sets", got=len(ends),
                     remedy="The file is broken.")  # fmt: skip
    return [part[~np.isnan(part)] for part in np.split(values, ends)[:count]]


def _read(context: NodeContext, n_features: int, n_targets: int) -> _Trees:
    modes = np.asarray(context.attr_tensor("nodes_modes")).reshape(-1)
    splits = np.asarray(context.attr_tensor("nodes_splits")).reshape(-1)
    weights = np.asarray(context.attr_tensor("leaf_weights")).reshape(-1)
    n, n_leaves = len(modes), len(weights)
    if modes.dtype.kind not in "iu" or len(splits) != n or (n and modes.max() > _MEMBER):
        context.fail("attribute 'nodes_modes'", expected=f"{len(splits)} modes up to {_MEMBER}",
                     got=f"{modes.dtype}[{n}]", remedy="The file is broken.")  # fmt: skip
    return _Trees(
        features=_ints(context, "nodes_featureids", n, n_features), splits=splits,
        modes=modes.astype(np.int64), yes=_children(context, "true", n, n_leaves),
        no=_children(context, "false", n, n_leaves),
        missing=_ints(context, "nodes_missing_value_tracks_true", n, 2) > 0,
        roots=_ints(context, "tree_roots", len(context.attr_ints("tree_roots")), n),
        members=_members(context, int((modes == _MEMBER).sum())),
        targets=_ints(context, "leaf_targetids", n_leaves, n_targets), weights=weights,
    )  # fmt: skip


def _depth(context: NodeContext, trees: _Trees) -> int:
    """Return the levels of the deepest tree; more than there are nodes is a circle."""
    at, depth = np.unique(trees.roots), 0
    while (at < trees.n_nodes).any():
        depth += 1
        if depth > trees.n_nodes:
            context.fail("trees", expected="no circles", got="one", remedy="The file is broken.")
        context.importer.budget.loop(depth, context.where)
        inner = at[at < trees.n_nodes]
        at = np.unique(np.concatenate([trees.yes[inner], trees.no[inner]]))
    return depth


def _decisions(context: NodeContext, trees: _Trees, at: Any, value: Any) -> Any:
    """Return whether each walk takes the way of true."""
    split = context.emit("gather", _padded(trees.splits, trees), at, axis=0)
    mode = context.emit("gather", _padded(trees.modes, trees), at, axis=0)
    taken: Any = None
    for number in np.unique(trees.modes):
        if number == _MEMBER:
            answer = _is_member(context, trees, at, value)
        else:
            answer = context.emit(_MODES[number], value, split)
        if taken is None:
            taken = answer
        else:
            chosen = context.emit("equal", mode, np.asarray(number, np.int64))
            taken = context.emit("where", chosen, answer, taken)
    if trees.missing.any():
        tracks = context.emit("gather", _padded(trees.missing, trees), at, axis=0)
        missing = context.emit("logical_and", context.emit("isnan", value), tracks)
        taken = context.emit("logical_or", taken, missing)
    return taken


def _is_member(context: NodeContext, trees: _Trees, at: Any, value: Any) -> Any:
    """Compare with every member of the set of the node; short sets are filled with NaN."""
    width = max([1, *map(len, trees.members)])
    nbytes = context.importer.budget.tensor((trees.n_nodes, width), 8, context.where)
    context.importer.budget.constant(nbytes, context.where)
    sets = np.full((trees.n_nodes, width), np.nan, trees.splits.dtype)
    for node, members in zip(np.flatnonzero(trees.modes == _MEMBER), trees.members, strict=True):
        sets[node, : len(members)] = members
    members = context.emit("gather", _padded(sets, trees), at, axis=0)
    same = context.emit("equal", context.emit("unsqueeze", value, axes=(2,)), members)
    hits = context.emit("reduce_max", context.emit("cast", same, dtype="uint8"), axes=(2,))
    return context.emit("cast", hits, dtype="bool")


def _padded(table: Array, trees: _Trees) -> Array:
    """Give leaves an entry that nobody looks at."""
    return np.concatenate([table, np.repeat(table[:1], len(trees.weights), 0)])


def _tree_ensemble(context: NodeContext, node: Any) -> Any:
    x, n_targets = context.x(), context.attr_int("n_targets", 1)
    aggregate = context.attr_int("aggregate_function", 1)
    if len(x.shape) != 2 or n_targets < 1 or not 0 <= aggregate < len(_AGGREGATES):
        context.fail("attributes", expected="(batch, features), targets, an aggregate up to 3",
                     got=f"{list(x.shape)}, {n_targets}, {aggregate}",
                     remedy="The file is broken.")  # fmt: skip
    trees = _read(context, x.shape[1], n_targets)
    leaves = np.arange(trees.n_nodes, trees.n_nodes + len(trees.weights))
    yes, no = np.concatenate([trees.yes, leaves]), np.concatenate([trees.no, leaves])
    x = context.emit("cast", x, dtype=trees.splits.dtype.name)
    shape = (x.shape[0], len(trees.roots))
    context.importer.budget.tensor((*shape, n_targets), 8, context.where)
    at = context.emit("broadcast_to", trees.roots, shape=shape)
    features = _padded(trees.features, trees)
    for _ in range(_depth(context, trees)):
        feature = context.emit("gather", features, at, axis=0)
        value = context.emit("gather_elements", x, feature, axis=1)
        taken = _decisions(context, trees, at, value)
        at = context.emit("where", taken, context.emit("gather", yes, at, axis=0),
                          context.emit("gather", no, at, axis=0))  # fmt: skip
    leaf = context.emit("sub", at, np.asarray(trees.n_nodes, np.int64))
    return _aggregated(context, trees, leaf, n_targets, _AGGREGATES[aggregate])


def _aggregated(context: NodeContext, trees: _Trees, leaf: Any, n_targets: int, reduce: str) -> Any:
    """Bring the weights of the leaves together for each target."""
    dtype = trees.weights.dtype
    weight = context.emit("gather", trees.weights, leaf, axis=0)
    target = context.emit("gather", trees.targets, leaf, axis=0)
    hit = context.emit("equal", context.emit("unsqueeze", target, axes=(2,)), np.arange(n_targets))
    nothing = {"reduce_min": np.inf, "reduce_max": -np.inf}.get(reduce, 0)
    spread = context.emit("where", hit, context.emit("unsqueeze", weight, axes=(2,)),
                          np.asarray(nothing, dtype))  # fmt: skip
    made = context.emit(reduce, spread, axes=(1,))
    post = context.attr_int("post_transform", 0)
    if post == 0:
        return context.result("identity", made)
    if post == 1:
        return context.result("softmax", made, axis=1)
    if post == 2:
        return context.result("sigmoid", made)
    return context.unsupported(f"post_transform {post}")


NODES = {"ai.onnx.ml::TreeEnsemble": OnnxMapping(since=5, build=_tree_ensemble)}
