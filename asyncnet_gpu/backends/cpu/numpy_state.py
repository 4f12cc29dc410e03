"""NumPy's settings while a run is under way: of one thread or context, never of the caller.

An infinity or NaN is a result, as on a GPU: no warning. And buffers are small, which matters to
calls that are made from Python (see `native` for the others): where operands are broadcast along
rows, NumPy's iterator copies them through a buffer as soon as several rows fit in it, which costs
more than the longer loop saves. With its default of 8,192 elements, adding a column to a matrix of
64 rows of 784 takes twice as long as with 512, by which conversions lose nothing yet; with 64 they
take twice as long. Measured by ``python -m benchmarks.buffers``.
"""

from __future__ import annotations

import contextvars

import numpy as np

#: Elements of each buffer.
BUFFER_SIZE = 512


def set_up() -> None:
    """Make the settings for the thread or context that calls."""
    np.seterr(all="ignore")
    np.setbufsize(BUFFER_SIZE)


def new_context() -> contextvars.Context:
    """Return a context with these settings: entering it costs less than making them each time."""
    context = contextvars.copy_context()
    context.run(set_up)
    return context
