"""Work calls off with another build of ``call_list.c``: to be run where a sanitizer watches.

    python sanitized.py LIBRARY [FAULT]

Calls of some cases of every operator, as far as they can be written down, and of each way through
the C file. A fault, by name, is planted into a call before them.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from functools import partial
from itertools import islice, product

import numpy as np

from asyncnet_gpu.backends.cpu.native.calls import elementary
from asyncnet_gpu.backends.cpu.native.encode import Calls, encode
from asyncnet_gpu.backends.cpu.numpy_state import set_up
from tests.native.arrays import Layout
from tests.native.cases import OPERATORS, bound, cases

#: Of an operator: the rest takes the same ways through the C file.
MOST_CASES = 12

Run = Callable[[Calls], None]

#: Place of the first address in a call; see ``call_list.c``.
DATA = 5


def runner(path: str) -> Run:
    function = ctypes.PyDLL(path)["asyncnet_run_calls"]
    function.argtypes = [ctypes.c_void_p] * 4
    function.restype = ctypes.c_int

    def run(calls: Calls) -> None:
        words = np.array(calls.words, np.int64)
        address = words.ctypes.data
        assert function(address, address + words.nbytes, None, None) == 0

    return run


def operators(run: Run) -> int:
    n = 0
    for op in OPERATORS:
        for case in islice(cases(op), MOST_CASES):
            made = bound(op, case)
            for call in elementary(made.launch):
                calls = Calls()
                if encode(call, calls):
                    run(calls)
                    n += 1
                else:
                    call()  # what follows reads what it makes
    return n


def layouts(run: Run) -> int:
    """Copies, masked copies, staged rows and steps of all signs, of every size of an element."""
    n = 0
    steps = list(product((1, -1, 2, 0), (1, -1, 3, 0)))
    for dtype, own, order in product(
        ("u1", "f2", "f4", "f8", "c8", "c16"), steps, ((0, 1), (1, 0))
    ):
        shape = (37, 5)
        _, x = Layout(shape, dtype if dtype[0] != "c" else "f4", order, own).make()
        x = x.astype(dtype) if dtype[0] == "c" else x
        out = np.zeros(shape, dtype)
        mask = np.random.default_rng(0).random(shape) < 0.5
        row, column = out[3].copy(), out[:, :1].copy()
        for call in (
            partial(np.copyto, out, x),
            partial(np.copyto, out.T, x.T),
            partial(np.copyto, out, x, where=mask),
            partial(out[::2, ::-1].fill, 3),
            partial(np.add, x, row, out=out),
            partial(np.add, x, column, out=out),
            partial(np.multiply, row, column, out=out),
            partial(np.add.reduce, x, axis=0, out=row),
        ):
            calls = Calls()
            if encode(call, calls):
                run(calls)
                n += 1
    return n


def plant(run: Run, fault: str) -> None:
    """Run a call with one wrong word."""
    calls = Calls()
    x, out = np.zeros(1000, "f4"), np.zeros(1000, "f4")
    if fault == "misaligned":
        assert encode(partial(np.copyto, out[:500], x[::2]), calls)
        calls.words[DATA + 1] += 2
    else:
        assert encode(partial(out.fill, 1), calls)
        calls.words[DATA] += 64
    run(calls)


if __name__ == "__main__":
    library, *faults = sys.argv[1:]
    set_up()
    run_calls = runner(library)
    for planted in faults:
        plant(run_calls, planted)
    done = operators(run_calls), layouts(run_calls)
    gc.collect()
    print("calls:", *done)
