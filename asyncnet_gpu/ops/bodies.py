"""What control operators are made of: bodies that run inside a node, and how a backend binds them.

`asyncnet_gpu.ops.control` says in which order copies, flags and bodies follow one another; a
`Binder` makes each of them. `ArrayBinder` does it through NumPy's functions; a backend whose
launches go another way brings its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, final

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Cost, Launch, Specs

#: A launch that is told the number of the pass.
Numbered = Callable[[int], object]


class Body(Protocol):
    """A computation inside a node."""

    @property
    def in_specs(self) -> Specs:
        """Specs of what it takes."""

    @property
    def out_specs(self) -> Specs:
        """Specs of what it gives."""

    def scratch(self, device_kind: str) -> Specs:
        """Specs of the memory that it works in."""

    def cost(self) -> Cost:
        """Work of one pass."""

    def bind(self, xp: Any, ins: Arrays, scratch: Arrays) -> tuple[Launch, Arrays]:
        """Return a launch that reads `ins`, and the arrays where it leaves its results."""


@dataclass(frozen=True)
class FunctionBody:
    """A body made of one function ``fn(xp, ins, outs)``; for tests and small things.

    Attributes
    ----------
    in_specs, out_specs
        Of the arrays that the function gets.
    fn
        Reads `ins` and fills `outs`.
    """

    in_specs: Specs
    out_specs: Specs
    fn: Callable[[Any, Arrays, Arrays], object]

    def scratch(self, device_kind: str) -> Specs:
        """Room for the results."""
        return self.out_specs

    def cost(self) -> Cost:
        """A guess: every element once."""
        moved = sum(s.nbytes for s in (*self.in_specs, *self.out_specs))
        return Cost(float(sum(s.size for s in self.out_specs)), float(moved), gil=True)

    def bind(self, xp: Any, ins: Arrays, scratch: Arrays) -> tuple[Launch, Arrays]:
        """Call the function on the arrays."""
        outs = list(scratch)
        return (lambda: self.fn(xp, ins, outs)), outs


class Binder(Protocol):
    """Makes the launches of a control operator, all in order of one stream."""

    @property
    def device_kind(self) -> str:
        """For what kind of device bodies are planned."""

    def body(
        self, key: str, body: Body, ins: Arrays, scratch: Arrays
    ) -> tuple[Launch, Arrays]:  # fmt: skip
        """Bind the body that is attribute `key` of the node; see `Body.bind`."""

    def copy(self, source: Any, target: Any) -> Launch:
        """Copy one array into another."""

    def take(self, rows: Any, target: Any) -> Numbered:
        """Copy the row of the pass, along the first axis, into an array."""

    def put(self, source: Any, rows: Any) -> Numbered:
        """Copy an array into the row of the pass."""

    def write(self, target: Any) -> Numbered:
        """Write the number of the pass; after the bodies that read it have been bound."""

    def read(self, array: Any) -> Callable[[], Any]:
        """Read one number on the host; waits for the device."""


@final
class ArrayBinder:
    """Binds through the functions of an array namespace, NumPy or CuPy."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp

    @property
    def device_kind(self) -> str:
        """The kind of device whose arrays these are."""
        return "cpu" if self._xp is np else "cuda"

    def body(
        self, key: str, body: Body, ins: Arrays, scratch: Arrays
    ) -> tuple[Launch, Arrays]:  # fmt: skip
        """Have the body bind itself."""
        return body.bind(self._xp, ins, scratch)

    def copy(self, source: Any, target: Any) -> Launch:
        """Copy one array into another."""
        return partial(self._xp.copyto, target, source)

    def take(self, rows: Any, target: Any) -> Numbered:
        """Copy the row of the pass into an array."""
        copy = self._xp.copyto
        return lambda i: copy(target, rows[i])

    def put(self, source: Any, rows: Any) -> Numbered:
        """Copy an array into the row of the pass."""

        def put(i: int) -> None:
            rows[i] = source  # a row of one axis is a number, into which nothing can be copied

        return put

    def write(self, target: Any) -> Numbered:
        """Write the number of the pass."""
        return target.fill  # type: ignore[no-any-return]

    def read(self, array: Any) -> Callable[[], Any]:
        """Read one number; on CUDA this waits for the device."""
        return array.reshape(-1).item  # type: ignore[no-any-return]
