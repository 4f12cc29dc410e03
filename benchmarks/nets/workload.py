"""`Workload`: a net, what to feed it, and the same job written plainly for the rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import asyncnet_gpu as ag

Array = np.ndarray[Any, Any]
#: ``plain(xp, a)``: outputs by name from inputs and parameters by name, in straight-line code.
Plain = Callable[[Any, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Workload:
    """One benchmark.

    Attributes
    ----------
    name
        As in the literature it comes from.
    net, inputs
        The definition, and an array for each of its inputs.
    plain
        The same job as straight-line array code, without this library.
    hand
        Prefixes of node names: nodes of the k-th go to stream k + 1 where streams are placed by
        hand, all others to stream 0.
    rtol, atol
        How far rivals may be from us: they add in another order.
    control
        Has nothing to gain from streams; must not get slower.
    sizes
        What was built, in words.
    """

    name: str
    net: ag.AsyncNet
    inputs: Mapping[str, Array]
    plain: Plain
    hand: tuple[str, ...] = ()
    rtol: float = 1e-4
    atol: float = 1e-5
    control: bool = False
    sizes: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, Array]:
        """Inputs, parameters and constants by name."""
        values = {s.name: s.value for s in self.net.sources if s.value is not None}
        return {**values, **self.inputs}


def scaled(base: int, scale: float, *, multiple: int = 1, root: int = 1) -> int:
    """Return `base` times the `root`-th root of `scale`, as a positive multiple of `multiple`."""
    return max(1, round(base * float(scale ** (1 / root)) / multiple)) * multiple


def normal(seed: int, *shape: int, size: float = 1.0, dtype: str = "float32") -> Array:
    """Return seeded normal numbers of standard deviation `size`."""
    return (size * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def uniform(
    seed: int, *shape: int, low: float = 0.0, high: float = 1.0, dtype: str = "float32"
) -> Array:
    """Return seeded numbers between `low` and `high`."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(dtype)
