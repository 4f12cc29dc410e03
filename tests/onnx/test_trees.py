"""Ensembles of decision trees against a walk from node to node."""

import operator

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import asyncnet_gpu.onnx.backend as backend
from asyncnet_gpu.errors import OnnxImportError

TESTS = (operator.le, operator.lt, operator.ge, operator.gt, operator.eq, operator.ne)
MEMBER = len(TESTS)
N_FEATURES, N_TARGETS = 4, 3


class Forest:
    """Random trees in the attributes of the operator."""

    def __init__(self, rng, n_trees, *, missing):
        self.rng, self.missing = rng, missing
        self.features, self.splits, self.modes, self.sets = [], [], [], {}
        self.children, self.tracks, self.leaves, self.roots = [], [], [], []
        for _ in range(n_trees):
            self.roots.append(self.grow(0)[0])

    def grow(self, depth):
        """Return number and kind of a new node or leaf."""
        if depth and (depth > 5 or self.rng.random() < 0.3):
            self.leaves.append((int(self.rng.integers(N_TARGETS)), float(self.rng.normal())))
            return len(self.leaves) - 1, 1
        at = len(self.modes)
        self.features.append(int(self.rng.integers(N_FEATURES)))
        self.splits.append(float(self.rng.integers(-2, 3)))
        self.modes.append(int(self.rng.integers(MEMBER + 1)))
        self.tracks.append(int(self.missing and self.rng.random() < 0.5))
        if self.modes[-1] == MEMBER:
            self.sets[at] = self.rng.choice(5, self.rng.integers(1, 4), replace=False) - 2.0
        self.children.append(None)
        self.children[at] = self.grow(depth + 1), self.grow(depth + 1)
        return at, 0

    def node(self, **attrs):
        members = [v for at in sorted(self.sets) for v in (*self.sets[at], np.nan)]
        if members:
            members = np.array(members, np.float32)
            attrs["membership_values"] = numpy_helper.from_array(members)
        yes, no = zip(*self.children, strict=True)
        return helper.make_node(
            "TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml", n_targets=N_TARGETS,
            tree_roots=self.roots, nodes_featureids=self.features,
            nodes_modes=numpy_helper.from_array(np.array(self.modes, np.uint8)),
            nodes_splits=numpy_helper.from_array(np.array(self.splits, np.float32)),
            nodes_truenodeids=[c[0] for c in yes], nodes_trueleafs=[c[1] for c in yes],
            nodes_falsenodeids=[c[0] for c in no], nodes_falseleafs=[c[1] for c in no],
            nodes_missing_value_tracks_true=self.tracks,
            leaf_targetids=[leaf[0] for leaf in self.leaves],
            leaf_weights=numpy_helper.from_array(np.array([v for _, v in self.leaves], "f4")),
            **attrs,
        )  # fmt: skip

    def walk(self, row, root):
        at, is_leaf = root, 0
        while not is_leaf:
            value, mode = row[self.features[at]], self.modes[at]
            if mode == MEMBER:
                taken = value in self.sets[at]
            else:
                taken = TESTS[mode](value, self.splits[at])
            taken = taken or (np.isnan(value) and self.tracks[at])
            at, is_leaf = self.children[at][0 if taken else 1]
        return self.leaves[at]

    def predict(self, x, start, combine):
        out = np.full((len(x), N_TARGETS), start, np.float64)
        for row, made in zip(x, out, strict=True):
            for root in self.roots:
                target, weight = self.walk(row, root)
                made[target] = combine(made[target], weight)
        return out


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("aggregate", "start", "combine"), [(1, 0, operator.add), (2, np.inf, min), (3, -np.inf, max)]
)
def test_forests_predict_as_a_walk_does(seed, aggregate, start, combine):
    rng = np.random.default_rng(seed)
    forest = Forest(rng, 7, missing=seed % 2)
    x = rng.integers(-3, 4, (50, N_FEATURES)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    (made,) = backend.run_node(forest.node(aggregate_function=aggregate), [x])
    np.testing.assert_allclose(made, forest.predict(x, start, combine), rtol=1e-5, atol=1e-6)


def test_a_mean_counts_every_tree():
    forest = Forest(np.random.default_rng(9), 5, missing=False)
    x = np.random.default_rng(10).integers(-3, 4, (20, N_FEATURES)).astype(np.float32)
    (made,) = backend.run_node(forest.node(aggregate_function=0), [x])
    np.testing.assert_allclose(made, forest.predict(x, 0, operator.add) / 5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"nodes_trueleafs": [0], "nodes_truenodeids": [0]}, "circles"),
     ({"nodes_truenodeids": [7]}, "truenodeids"), ({"leaf_targetids": [9, 0]}, "leaf_target"),
     ({"tree_roots": [3]}, "tree_roots"), ({"nodes_featureids": [-1]}, "featureids")],
)  # fmt: skip
def test_broken_trees_are_refused(change, expected):
    attrs = {
        "n_targets": 1, "tree_roots": [0], "nodes_featureids": [0], "nodes_trueleafs": [1],
        "nodes_modes": helper.make_tensor("m", TensorProto.UINT8, [1], [0]),
        "nodes_splits": helper.make_tensor("s", TensorProto.FLOAT, [1], [0.5]),
        "nodes_truenodeids": [0], "nodes_falsenodeids": [1], "nodes_falseleafs": [1],
        "leaf_targetids": [0, 0], "leaf_weights": helper.make_tensor("w", 1, [2], [1.0, 2.0]),
    }  # fmt: skip
    x = np.array([[0.0], [1.0]], np.float32)
    node = helper.make_node("TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml", **attrs)
    assert backend.run_node(node, [x])[0].tolist() == [[1.0], [2.0]]
    broken = helper.make_node("TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml",
                              **{**attrs, **change})  # fmt: skip
    with pytest.raises(OnnxImportError, match=expected):
        backend.run_node(broken, [x])
