"""CuPy with products that can be captured: the array namespace of operators that multiply matrices.

CuPy's own products raise while a stream is capturing. These go through the stream's handle
(see `blas`); everything else is CuPy's.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any, final

import cupy
import numpy as np

from asyncnet_gpu.backends.cuda.blas import bind_product
from asyncnet_gpu.backends.cuda.context import StepContext
from asyncnet_gpu.ops.matmul import as_matrices, flat_product

#: Operators without a kernel that multiply matrices through `xp`.
PRODUCTS = frozenset({"einsum"})


@final
class ProductNamespace:
    """`cupy`, but for `matmul` and `einsum`; for one step.

    Parameters
    ----------
    like
        An array of the dtype of the products.
    """

    def __init__(self, context: StepContext, like: Any) -> None:
        # Made now and not by the first product, which may be captured.
        self._blas = context.blas(like)

    def __getattr__(self, name: str) -> Any:
        return getattr(cupy, name)

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        """Multiply (..., m, k) by (..., k, n); operands of two axes or more."""
        if self._blas is None:
            return cupy.matmul(a, b, out=out)
        if out is None:
            batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
            out = cupy.empty((*batch, a.shape[-2], b.shape[-1]), a.dtype)
        if not out.size:
            return out
        if not a.shape[-1]:
            out.fill(0)
            return out
        target = out if out.flags.c_contiguous else cupy.empty(out.shape, out.dtype)
        self._product(a, b, target)
        if target is not out:
            cupy.copyto(out, target)
        return out

    def _product(self, a: Any, b: Any, out: Any) -> None:
        launch: Callable[[], object] | None = None
        for copy in (cupy.asarray, cupy.ascontiguousarray):
            a, b = copy(a), copy(b)  # kept until the product is enqueued
            launch = bind_product(self._blas, *flat_product(*as_matrices(a, b, out)))  # type: ignore[arg-type]
            if launch is not None:
                launch()
                return
        cupy.matmul(a, b, out=out)

    def einsum(self, equation: str, *arrays: Any) -> Any:
        """Contract from left to right, two operands at a time, each pair as one product."""
        if self._blas is None or len(arrays) < 2:
            return cupy.einsum(equation, *arrays)
        operands, result = _lettered(equation, arrays)
        term, array = operands[0]
        for i, (other_term, other) in enumerate(operands[1:], 2):
            wanted = set(result).union(*(later for later, _ in operands[i:]))
            term, array = self._contract(term, array, other_term, other, wanted)
        return cupy.einsum(f"{term}->{result}", array)

    def _contract(self, left: str, a: Any, right: str, b: Any, wanted: set[str]) -> tuple[str, Any]:
        """Multiply two operands and sum over the letters that nobody wants any more."""
        left, a = _own(left, a, wanted | set(right))
        right, b = _own(right, b, wanted | set(left))
        both = [c for c in left if c in right]
        batch = "".join(c for c in both if c in wanted)
        summed = "".join(c for c in both if c not in wanted)
        rows = "".join(c for c in left if c not in right)
        columns = "".join(c for c in right if c not in left)
        extents = dict(zip(left + right, (*a.shape, *b.shape), strict=True))
        sizes = [[extents[c] for c in letters] for letters in (batch, rows, summed, columns)]
        n, m, k, width = (int(np.prod(size, dtype=np.int64)) for size in sizes)
        product = self.matmul(
            a.transpose([left.index(c) for c in batch + rows + summed]).reshape(n, m, k),
            b.transpose([right.index(c) for c in batch + summed + columns]).reshape(n, k, width),
        )
        return batch + rows + columns, product.reshape(*sizes[0], *sizes[1], *sizes[3])


def _lettered(equation: str, arrays: tuple[Any, ...]) -> tuple[list[tuple[str, Any]], str]:
    """Give axes of ellipses letters of their own, from the right; repeat extents of 1."""
    inputs, result = equation.split("->")
    terms = inputs.split(",")
    free = [c for c in string.ascii_letters if c not in equation]
    n_dots = [a.ndim - len(t.replace("...", "")) for t, a in zip(terms, arrays, strict=True)]
    dots = "".join(free[: max([0, *(n for n, t in zip(n_dots, terms, strict=True) if "..." in t)])])
    named = [
        term.replace("...", dots[len(dots) - n :]) for term, n in zip(terms, n_dots, strict=True)
    ]
    extents: dict[str, int] = {}
    for term, array in zip(named, arrays, strict=True):
        for letter, extent in zip(term, array.shape, strict=True):
            extents[letter] = extent if extents.get(letter, 1) == 1 else extents[letter]
    operands = [
        (term, cupy.broadcast_to(array, tuple(extents[c] for c in term)))
        for term, array in zip(named, arrays, strict=True)
    ]
    return operands, result.replace("...", dots)


def _own(term: str, array: Any, wanted: set[str]) -> tuple[str, Any]:
    """Take diagonals of letters that stand twice, and sums over letters of this operand alone."""
    kept = "".join(dict.fromkeys(c for c in term if c in wanted))
    return (term, array) if kept == term else (kept, cupy.einsum(f"{term}->{kept}", array))
