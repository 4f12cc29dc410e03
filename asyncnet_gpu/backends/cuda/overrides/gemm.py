"""`gemm` through cuBLAS: the addend is laid into the output first, then scaled by the product."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cupy

from asyncnet_gpu.backends.cuda.blas import bind_product
from asyncnet_gpu.backends.cuda.context import StepContext
from asyncnet_gpu.backends.cuda.launch import run_in_order
from asyncnet_gpu.ops.base import Arrays, Attrs


def bind(
    context: StepContext, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Callable[[], object] | None:
    """Return a launch of cuBLAS, or None for what it does not take."""
    blas = context.blas(outs[0])
    if blas is None:
        return None
    a = ins[0].T if attrs["trans_a"] else ins[0]
    b = ins[1].T if attrs["trans_b"] else ins[1]
    beta = float(attrs["beta"]) if len(ins) > 2 else 0.0
    product = bind_product(blas, a, b, outs[0], float(attrs["alpha"]), beta)
    if product is None or beta == 0.0:
        return product
    fill = context.copy(cupy.broadcast_to(ins[2], outs[0].shape), outs[0])
    return None if fill is None else partial(run_in_order, (fill, product))
