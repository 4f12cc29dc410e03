"""Fold scales and shifts by channel into the convolution beside them.

A convolution is linear: ``scale * conv(x, w) + shift`` is a convolution with other weights, and so
is ``conv(scale * x + shift, w)`` where no window reaches into padding (which would be shifted too).
What scales and shifts is batch normalisation, and arithmetic with a constant of one number or one
for each channel. Only constants are folded: parameters can be set between runs.

Source: Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", 2018, section 3.2 (batch normalisation after a convolution).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asyncnet_gpu.graph import BlobInfo, Gone, Graph, Node, Storage, keep_nodes
from asyncnet_gpu.ops.conv import OPS as CONVOLUTIONS
from asyncnet_gpu.ops.conv_shape import conv_shape
from asyncnet_gpu.passes.constants import array_of
from asyncnet_gpu.passes.users import Users
from asyncnet_gpu.specs import TensorSpec, contiguous_strides

Array = np.ndarray[Any, Any]

_TRANSPOSED = "conv_transpose"
_LINEAR = frozenset([op.name for op in CONVOLUTIONS] + [_TRANSPOSED])
_FOLDED_DTYPES = frozenset({"float32", "float64"})  # float16 weights would be rounded twice


@dataclass(frozen=True, slots=True)
class _Affine:
    """A node that computes ``scale * x + shift``, one number for each channel (axis 1)."""

    x: str
    scale: Array
    shift: Array


class _Folding:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = Users(graph)
        self.producer = {name: node for node in graph.nodes for name in node.writes}
        self.nodes = list(graph.nodes)
        self.keep = [True] * len(graph.nodes)
        self.gone: dict[int, Gone] = {}
        self.blobs = dict(graph.blobs)
        self.storages = list(graph.storages)
        self.values = dict(graph.values)
        self.by_storage = {graph.blobs[name].storage: value for name, value in self.values.items()}

    # -- constants -----------------------------------------------------------------------------

    def constant(self, name: str) -> Array | None:
        blob = self.graph.blobs[name]
        value = self.by_storage.get(blob.storage)
        if value is None or self.graph.storages[blob.storage].kind != "constant":
            return None
        return array_of(blob, np.ascontiguousarray(value)).astype(np.float64)

    def add_constant(self, name: str, value: Array, device: int) -> str:
        while name in self.blobs:
            name += "'"
        storage = Storage(len(self.storages), device, value.nbytes, "constant")
        self.storages.append(storage)
        strides = contiguous_strides(value.shape, value.dtype.itemsize)
        spec = TensorSpec(value.shape, value.dtype)
        self.blobs[name] = BlobInfo(name, spec, storage.id, 0, strides, "constant")
        self.values[name] = value
        return name

    # -- what scales and shifts ------------------------------------------------------------------

    def by_channel(self, name: str, shape: tuple[int, ...]) -> Array | None:
        """Return a constant operand as a number for each channel; None when it is anything else."""
        value = self.constant(name)
        if value is None or value.ndim > len(shape):
            return None
        extents = (1,) * (len(shape) - value.ndim) + value.shape
        if any(extent != 1 for axis, extent in enumerate(extents) if axis != 1):
            return None
        return np.broadcast_to(value.reshape(-1), shape[1:2])

    def affine(self, node: Node) -> _Affine | None:
        """Say what a node scales and shifts, if that is all it does."""
        spec = self.graph.write_specs(node)[0]
        if spec.ndim < 3 or spec.dtype.name not in _FOLDED_DTYPES:
            return None
        if not self.users.ordered_freely(node):
            return None
        if node.op.name == "batch_norm":
            found = self._norm(node)
        elif node.op.name in ("add", "sub", "mul", "div"):
            found = self._arithmetic(node, spec.shape)
        else:
            return None
        if found is None or self.graph.blobs[found.x].spec.shape != spec.shape:
            return None
        return found if np.isfinite([found.scale, found.shift]).all() else None

    def _norm(self, node: Node) -> _Affine | None:
        numbers = [self.constant(name) for name in node.reads[1:]]
        if any(n is None for n in numbers):
            return None
        scale, bias, mean, variance = (np.asarray(n) for n in numbers)
        factor = scale / np.sqrt(variance + node.attrs["epsilon"])
        return _Affine(node.reads[0], factor, bias - mean * factor)

    def _arithmetic(self, node: Node, shape: tuple[int, ...]) -> _Affine | None:
        a, b = node.reads
        left, right = self.by_channel(a, shape), self.by_channel(b, shape)
        if (left is None) == (right is None):
            return None
        number = np.array(left if right is None else right)
        x = b if right is None else a
        one, zero = np.ones(shape[1]), np.zeros(shape[1])
        if node.op.name == "add":
            return _Affine(x, one, number)
        if node.op.name == "mul":
            return _Affine(x, number, zero)
        if node.op.name == "sub":
            return _Affine(x, one, -number) if x == a else _Affine(x, -one, number)
        if x == b:
            return None  # a number divided by x
        with np.errstate(divide="ignore", over="ignore"):
            return _Affine(x, 1 / number, zero)

    # -- folding ---------------------------------------------------------------------------------

    def after(self, conv: Node) -> tuple[Node, _Affine] | None:
        """Return the one node that reads the convolution's output, if it can be folded."""
        (out,) = conv.writes
        readers = self.users.readers[self.graph.blobs[out].storage]
        if len(readers) != 1 or not self.users.only_between(out, conv.id, set(readers)):
            return None
        node = self.nodes[readers[0]]
        found = self.affine(node)
        if found is None or found.x != out or node.device != conv.device:
            return None
        return node, found

    def before(self, conv: Node) -> tuple[Node, _Affine] | None:
        """Return the node that makes the convolution's input, if it can be folded."""
        x = conv.reads[0]
        node = self.producer.get(x)
        if node is None or node.device != conv.device or conv.op.name == _TRANSPOSED:
            return None
        if not self.users.only_between(x, node.id, {conv.id}):
            return None
        found = self.affine(node)
        if found is None or not self.users.steady(found.x, node.id, conv.id):
            return None
        return None if found.shift.any() and self.pads(conv) else (node, found)

    def pads(self, conv: Node) -> bool:
        ins = self.graph.read_specs(conv)
        return conv_shape(ins, conv.attrs, where=conv.op.name, n_spatial=None).window.padded

    def fold(self, conv: Node) -> None:
        """Fold everything that can be into one convolution."""
        dtype = self.graph.blobs[conv.writes[0]].spec.dtype
        if dtype.name not in _FOLDED_DTYPES or not self.users.ordered_freely(conv):
            return
        groups = int(conv.attrs["groups"])
        if groups != 1 and conv.op.name == _TRANSPOSED:
            return
        if self.after(conv) is None and self.before(conv) is None:
            return
        weights = self.constant(conv.reads[1])
        bias = self.constant(conv.reads[2]) if len(conv.reads) > 2 else np.zeros(())
        if weights is None or bias is None:
            return
        out_axis = 1 if conv.op.name == _TRANSPOSED else 0
        bias = np.broadcast_to(bias, weights.shape[out_axis : out_axis + 1])
        current = conv
        while (step := self.after(current)) is not None:
            node, affine = step
            weights = weights * affine.scale.reshape(-1, *(1,) * (weights.ndim - 1 - out_axis))
            bias = bias * affine.scale + affine.shift
            current = self.take_over(replace(current, writes=node.writes), node)
        while (step := self.before(current)) is not None:
            node, affine = step
            weights, added = _through(weights, affine, groups)
            bias = bias + added
            current = self.take_over(replace(current, reads=(affine.x, *current.reads[1:])), node)
        w = self.add_constant(f"{conv.name}.weights", weights.astype(dtype), conv.device)
        b = self.add_constant(f"{conv.name}.bias", bias.astype(dtype), conv.device)
        self.nodes[conv.id] = replace(current, reads=(current.reads[0], w, b))

    def take_over(self, conv: Node, gone: Node) -> Node:
        """Note that the convolution now does the work of another node too."""
        blobs, users = self.graph.blobs, self.users
        self.keep[gone.id] = False
        self.gone[gone.id] = Gone(f"computed by the weights of {conv.name!r}", conv.name)
        self.nodes[conv.id] = conv
        for name in gone.reads:
            readers = users.readers[blobs[name].storage]
            if gone.id in readers:
                readers.remove(gone.id)
        x = users.readers[blobs[conv.reads[0]].storage]
        if conv.id not in x:
            x.append(conv.id)
        (out,) = conv.writes
        self.producer[out] = conv
        users.writers[blobs[out].storage] = [conv.id]
        return conv

    def result(self) -> Graph:
        graph = self.graph
        changed = replace(
            graph, nodes=tuple(self.nodes), blobs=self.blobs, storages=tuple(self.storages),
            values=self.values,
        )  # fmt: skip
        return keep_nodes(changed, self.keep, self.values, self.gone)


def _through(weights: Array, affine: _Affine, groups: int) -> tuple[Array, Array]:
    """Return weights for the unscaled input, and what the shift adds to each output channel."""
    m, c = weights.shape[:2]
    by_group = weights.reshape(groups, m // groups, c, -1)
    added = (by_group * affine.shift.reshape(groups, 1, c, 1)).sum((2, 3)).reshape(m)
    scaled = by_group * affine.scale.reshape(groups, 1, c, 1)
    return scaled.reshape(weights.shape), added


def fold_affine(graph: Graph) -> Graph:
    """Fold constant scales and shifts into the convolutions beside them; O(nodes + operands)."""
    if not any(node.op.name in _LINEAR for node in graph.nodes):
        return graph
    folding = _Folding(graph)
    for node in graph.nodes:
        if folding.keep[node.id] and node.op.name in _LINEAR:
            folding.fold(node)
    return graph if all(folding.keep) else folding.result()
