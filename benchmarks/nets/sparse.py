"""Sparse matrices with three values in each row, as columns: ``values`` and ``places`` (3, n)."""

from __future__ import annotations

from typing import Any

import numpy as np

import asyncnet_gpu as ag

from .workload import Array, uniform

PER_ROW = 3


def random_matrix(seed: int, n: int, dtype: str) -> tuple[Array, Array]:
    """Return values and places of a random n x n matrix."""
    rng = np.random.default_rng(seed)
    return uniform(seed, PER_ROW, n, dtype=dtype), rng.integers(0, n, (PER_ROW, n))


def product(net: ag.AsyncNet, matrix: tuple[ag.Blob, ag.Blob], x: ag.Blob, name: str) -> ag.Blob:
    """Add matrix times vector."""
    values, places = matrix
    taken = net.mul(net.gather(x, places, name=f"{name}.take"), values, name=f"{name}.mul")
    made: ag.Blob = net.reduce_sum(taken, axes=(0,), name=name)
    return made


def plain_product(xp: Any, matrix: tuple[Any, Any], x: Any) -> Any:
    values, places = matrix
    return (xp.take(x, places) * values).sum(axis=0)
