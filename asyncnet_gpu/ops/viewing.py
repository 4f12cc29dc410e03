"""How an operator whose output is a view of its input is put together.

None has a place in a plan as long as the input's strides can express the result: `Op.view` lays the
output into the storage of the input. `bind` and `kernel` copy in the other case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Attrs, KernelLaunch, Launch, Op, Specs
from asyncnet_gpu.ops.strided import bind_copies, copy_launches
from asyncnet_gpu.specs import TensorSpec

View = Callable[[Any, Attrs], Any]


def _parts(view: View, array: Any, attrs: Attrs) -> tuple[Any, ...]:
    made = view(array, attrs)
    return made if isinstance(made, tuple) else (made,)


def _bind_view(view: View) -> Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]:
    """Return a `bind` that copies the views of the input into the outputs."""

    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        return bind_copies(xp, list(zip(_parts(view, ins[0], attrs), outs, strict=True)))

    return bind


def _kernel_view(
    view: View,
) -> Callable[[Arrays, Arrays, Attrs, Arrays], Sequence[KernelLaunch] | None]:
    def kernel(
        ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        return copy_launches(list(zip(_parts(view, ins[0], attrs), outs, strict=True)))

    return kernel


def reshaped(ins: Specs, shape: Sequence[int]) -> Specs:
    """Specs of one output with the dtype of the first input."""
    return (TensorSpec(tuple(shape), ins[0].dtype),)


def view_op(view: View, **fields: Any) -> Op:
    """Return an operator of one input that is `view`, and a copy where that is impossible."""
    fields = {"n_inputs": (1, 1), "bind": _bind_view(view), "kernel": _kernel_view(view), **fields}
    return Op(view=view, **fields)


def repeated_view(array: Any, shape: Sequence[int]) -> Any:
    """Broadcast an array to `shape` by strides of 0, for NumPy and CuPy arrays alike."""
    padded = array[(None,) * (len(shape) - array.ndim) + (...,)]
    strides = [
        0 if have != want else stride
        for have, want, stride in zip(padded.shape, shape, padded.strides, strict=True)
    ]
    if isinstance(array, np.ndarray):
        return np.lib.stride_tricks.as_strided(array, shape, strides)
    return type(array)(shape, array.dtype, array.data, strides)
