"""A long filter over one signal, as a product with a band matrix.

One channel in and one out leaves matrix products nothing to share between outputs. So a run of
outputs is computed at once: they read one stretch of the signal, and its product with the matrix
whose columns are the filter, each one step further down, gives the whole run. Zeros of the band are
multiplied too, half as many again as there are taps, at 20 times the rate of one dot product each.

Source: convolution as a Toeplitz matrix, Golub and Van Loan, "Matrix Computations", 4th edition,
section 4.8.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Launch, Specs
from asyncnet_gpu.ops.conv_shape import ConvShape
from asyncnet_gpu.specs import TensorSpec

#: Outputs of a run.
_RUN = 64

#: Shorter filters and signals gain nothing.
_FEWEST_TAPS = 32
_FEWEST_POSITIONS = 4 * _RUN


def is_filter(shape: ConvShape, dtype: np.dtype[Any]) -> bool:
    """Whether this is one long filter over one signal without padding."""
    window = shape.window
    return (
        shape.groups == shape.c == shape.m == 1
        and dtype.itemsize >= 4
        and not window.padded
        and window.dilations[-1] == 1
        and shape.taps == window.kernel[-1] >= _FEWEST_TAPS
        and shape.positions == window.out[-1] >= _FEWEST_POSITIONS
    )


def _terms(shape: ConvShape) -> int:
    """Elements of the signal that a run reads."""
    return shape.window.strides[-1] * (_RUN - 1) + shape.taps


def filter_scratch(shape: ConvShape, dtype: np.dtype[Any]) -> Specs:
    """Temporaries: the band matrix, and the stretch of each run."""
    n_runs = -(-shape.positions // _RUN)
    return (
        TensorSpec((_terms(shape), _RUN), dtype),
        TensorSpec((n_runs, _terms(shape)), dtype),
    )


def filter_steps(
    xp: Any, x: Any, w: Any, out: Any, shape: ConvShape, scratch: Any
) -> list[Launch]:  # fmt: skip
    """Return the steps that filter every image of `x`, whose last axis is contiguous."""
    band, stretches = scratch
    step, item = shape.window.strides[-1], out.dtype.itemsize
    taps = xp.lib.stride_tricks.as_strided(
        band, (shape.taps, _RUN), (_RUN * item, (step * _RUN + 1) * item)
    )
    steps: list[Launch] = [
        partial(band.fill, 0),
        partial(xp.copyto, taps, w.reshape(-1)[:, None]),
    ]
    n_whole, rest = divmod(shape.positions, _RUN)
    for image in range(shape.n):
        signal, goal = x[image].reshape(-1), out[image].reshape(-1)
        for first, n_runs, length in ((0, n_whole, _RUN), (n_whole * _RUN, 1, rest)):
            if not length or not n_runs:
                continue
            terms = step * (length - 1) + shape.taps
            start = signal[first * step :]
            windows = xp.lib.stride_tricks.as_strided(
                start, (n_runs, terms), (step * _RUN * item, item)
            )
            rows = stretches[:n_runs, :terms]
            part = goal[first : first + n_runs * length].reshape(n_runs, length)
            steps.append(partial(xp.copyto, rows, windows))
            steps.append(partial(xp.matmul, rows, band[:terms, :length], out=part))
    return steps
