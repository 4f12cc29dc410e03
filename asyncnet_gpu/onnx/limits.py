"""What a model file may ask for: checked before anything is allocated, counted in Python integers.

A file of a hundred bytes can name a tensor of an exabyte, a loop without end or a graph nested a
thousand deep. Every such number is held against these caps first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from asyncnet_gpu.errors import OnnxImportError, message


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps on a model file; raise one to load a model that honestly needs more.

    Attributes
    ----------
    max_file_bytes
        Size of the file without external data; protobuf itself ends at 2 GiB.
    max_nodes
        Nodes that are imported, each pass through an unrolled loop counted.
    max_tensor_bytes
        Any one tensor: initializer, input, or result of a node.
    max_constant_bytes
        All initializers and folded constants together.
    max_fold_bytes
        Result of one node that is computed while importing; larger ones are computed later.
    max_fold_flops
        Work of one node that is computed while importing.
    max_depth
        Subgraphs and functions inside one another.
    max_loop_count
        Passes through a loop that is unrolled.
    max_unrolled_nodes
        Nodes that unrolling one loop may make; a longer one runs as a nested net.
    max_bound_bytes
        An input whose value decides shapes and so becomes part of the signature.
    """

    max_file_bytes: int = (1 << 31) - 1
    max_nodes: int = 200_000
    max_tensor_bytes: int = 4 << 30
    max_constant_bytes: int = 16 << 30
    max_fold_bytes: int = 64 << 20
    max_fold_flops: float = 2e9
    max_depth: int = 32
    max_loop_count: int = 4096
    max_unrolled_nodes: int = 4096
    max_bound_bytes: int = 1 << 16


#: NumPy has no more axes than this.
MAX_NDIM = 32


@final
class Budget:
    """Counts what one import has used of its limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.n_nodes = 0
        self.constant_bytes = 0

    def node(self, where: str) -> None:
        """Count a node."""
        self.n_nodes += 1
        if self.n_nodes > self.limits.max_nodes:
            raise _over(where, "number of nodes", "max_nodes", self.limits.max_nodes, self.n_nodes)

    def tensor(self, shape: Sequence[int], itemsize: int, where: str) -> int:
        """Return the bytes of a tensor, or refuse them; Python's integers cannot overflow."""
        if len(shape) > MAX_NDIM or any(extent < 0 for extent in shape):
            raise OnnxImportError(
                message(where, f"shape {tuple(shape)[:40]}",
                        expected=f"at most {MAX_NDIM} extents of at least 0", got=len(shape),
                        remedy="The file is broken.")
            )  # fmt: skip
        nbytes = math.prod(shape) * itemsize
        # Extents beside a 0 count as well: strides are computed from them.
        if math.prod([max(1, e) for e in shape]) * itemsize > self.limits.max_tensor_bytes:
            raise _over(
                where, f"bytes of a tensor of shape {tuple(shape)}", "max_tensor_bytes",
                self.limits.max_tensor_bytes, nbytes,
            )  # fmt: skip
        return nbytes

    def constant(self, nbytes: int, where: str) -> None:
        """Count bytes of a constant."""
        self.constant_bytes += nbytes
        if self.constant_bytes > self.limits.max_constant_bytes:
            raise _over(
                where, "bytes of all constants", "max_constant_bytes",
                self.limits.max_constant_bytes, self.constant_bytes,
            )  # fmt: skip

    def depth(self, depth: int, where: str) -> None:
        """Refuse what is nested too deep."""
        if depth > self.limits.max_depth:
            raise _over(where, "nesting", "max_depth", self.limits.max_depth, depth)

    def loop(self, count: int, where: str) -> None:
        """Refuse a loop that would be unrolled for too long."""
        if count > self.limits.max_loop_count:
            raise _over(
                where, "passes through a loop", "max_loop_count", self.limits.max_loop_count, count
            )


def _over(where: str, what: str, limit: str, cap: int, got: int) -> OnnxImportError:
    return OnnxImportError(
        message(where, f"{what} over the limit", expected=f"at most {cap}", got=got,
                remedy=f"If you trust the file, load it with Limits({limit}=...).")
    )  # fmt: skip
