"""`matmul` through cuBLAS."""

from __future__ import annotations

from collections.abc import Callable

from asyncnet_gpu.backends.cuda.blas import bind_product
from asyncnet_gpu.backends.cuda.context import StepContext
from asyncnet_gpu.ops.base import Arrays, Attrs
from asyncnet_gpu.ops.matmul import as_matrices, flat_product


def bind(
    context: StepContext, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Callable[[], object] | None:
    """Return a launch of cuBLAS, or None for what it does not take."""
    blas = context.blas(outs[0])
    if blas is None:
        return None
    return bind_product(blas, *flat_product(*as_matrices(ins[0], ins[1], outs[0])))
