"""Formulas that take several NumPy calls, carried out block by block so that they stay in cache.

Each call passes over all its elements; over an array larger than the cache, every pass would go to
memory. A block is small enough for all its passes to hit the cache and large enough that a call
costs little. float16 is computed in float32: each pass would round otherwise, and NumPy has to
convert element by element in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Attrs, Launch, Specs
from asyncnet_gpu.ops.strided import launch_all, nothing
from asyncnet_gpu.specs import TensorSpec

#: Elements of a block: 256 KiB of float32, so that input, output and two temporaries fit into a
#: megabyte of second-level cache. Shorter calls keep two threads at Python's lock: half of
#: this made two streams 3 % slower on the image workload, one stream no faster.
BLOCK = 1 << 16

Step = Callable[[], object]

#: ``(xp, x, y, temporaries, attrs) -> steps`` that fill `y`; right also when `y` is `x`.
Formula = Callable[[Any, Any, Any, Sequence[Any], Attrs], list[Step]]


def number(xp: Any, value: float, like: Any) -> Any:
    """Return a constant as a 0-d array: a Python number would be converted at every launch."""
    return xp.full((), value, like.dtype)


def working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which several roundings are taken: float32 for float16."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def formula_scratch(n_temporaries: int) -> Callable[[Specs, Specs, Attrs, str], Specs]:
    """Return `Op.scratch` of a formula: a block for each temporary."""

    def scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
        dtype = working_dtype(ins[0].dtype)
        n = n_temporaries + (dtype != ins[0].dtype)
        return (TensorSpec((min(outs[0].size, BLOCK),), dtype),) * n

    return scratch


def formula_bind(formula: Formula) -> Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]:
    """Return `Op.bind` of a formula of one array; `formula_scratch` says what it needs."""

    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        x, out = ins[0], outs[0]
        if not out.size:
            return nothing
        steps: list[Step] = []
        if not x.flags.c_contiguous:
            # Blocks of a strided array have no common shape; its copy is walked in place.
            steps.append(partial(xp.copyto, out, x))
            x = out
        x, out = x.reshape(-1), out.reshape(-1)
        for start in range(0, out.size, BLOCK):
            part = slice(start, start + BLOCK)
            steps += _block(formula, xp, x[part], out[part], attrs, scratch)
        return launch_all(steps)

    return bind


def _block(
    formula: Formula, xp: Any, x: Any, out: Any, attrs: Attrs, scratch: Arrays
) -> list[Step]:
    temporaries = [s[: out.size] for s in scratch]
    if working_dtype(out.dtype) == out.dtype:
        return formula(xp, x, out, temporaries, attrs)
    work, *others = temporaries
    return [
        partial(xp.copyto, work, x),
        *formula(xp, work, work, others, attrs),
        partial(xp.copyto, out, work, casting="same_kind"),
    ]
