"""The compiled half: ``kernels/host/call_list.c``, found, checked and called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, final

from asyncnet_gpu.errors import message

#: Set to 0, every call of NumPy goes through Python.
SWITCH = "ASYNCNET_NATIVE"

_PACKAGE = Path(__file__).resolve().parents[3]
_FOLDERS = (_PACKAGE / "_kernels" / "host", _PACKAGE.parent / "kernels" / "host")

#: ``(first word, end, state, lane)`` as addresses; the last two may be None.
Run = Callable[[int, int, int | None, int | None], Any]

#: What the function returns; the same numbers stand in ``call_list.c``.
_DONE, _LEFT, _STUCK, _LOOK = 0, 1, 2, 3


@final
class LaneState(ctypes.Structure):
    """``lane_state`` of ``call_list.c``: what the thread that works off lists tells, and is told.

    Attributes
    ----------
    progress
        Address of the call under way.
    since
        When the wait under way began (nanoseconds), if it was left to be taken up again; or 0.
    marks, stamps
        Addresses of `CallList.marks` and of two 64-bit numbers for each: nanoseconds on the clock
        and, if `thread_clock` is set, on that of the thread. None asks for no times.
    """

    progress: int
    since: int
    marks: int | None
    stamps: int | None
    thread_clock: int

    _fields_ = (
        ("progress", ctypes.c_int64),
        ("since", ctypes.c_int64),
        ("marks", ctypes.c_void_p),
        ("stamps", ctypes.c_void_p),
        ("thread_clock", ctypes.c_int64),
    )


class DrainError(Exception):
    """Leaves a list, and the loop that called it: something failed or was cancelled elsewhere."""


class StuckError(Exception):
    """An event was not recorded within the limit: a step of another stream hangs."""


@dataclass(frozen=True, slots=True)
class Library:
    """The function that carries calls out, three times.

    Attributes
    ----------
    run
        Lets go of Python's lock meanwhile.
    run_locked
        Keeps it: for a list so short that another thread could not begin before it ends.
    run_waiting
        Lets go of it; raises `DrainError` or `StuckError` where a wait for an event ends so.
    """

    run: Run
    run_locked: Run
    run_waiting: Run


def library() -> Library | None:
    """Return the compiled library, or None: not compiled, or switched off."""
    return None if os.environ.get(SWITCH) == "0" else _load()[0]


def missing() -> str:
    """Return why there is no library, or "" if there is one."""
    return f"{SWITCH}=0" if os.environ.get(SWITCH) == "0" else _load()[1]


@cache
def _load() -> tuple[Library | None, str]:
    for folder in _FOLDERS:
        path = folder / "call_list.so"
        if path.is_file():
            return _open(path)
    return None, "call_list.so was not compiled: install with a C compiler at hand"


def _open(path: Path) -> tuple[Library | None, str]:
    source = path.with_suffix(".c")
    try:
        releasing, keeping = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
        releasing.asyncnet_source.restype = ctypes.c_char_p
        compiled_from = releasing.asyncnet_source().decode()
        digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    except (OSError, AttributeError) as error:
        return None, f"{path} cannot be loaded: {error}"
    if compiled_from != digest:
        problem = message("cpu", "call_list.so is out of date", expected=f"compiled from {source}",
                          got="from another version of it",
                          remedy=f"python {path.with_name('build.py')}")  # fmt: skip
        warnings.warn(problem, RuntimeWarning, stacklevel=2)
        return None, problem
    run, waiting = _declared(releasing), _declared(releasing)
    waiting.errcheck = partial(_check, run)
    return Library(run, _declared(keeping), waiting), ""


def _declared(opened: ctypes.CDLL) -> Any:
    function = opened["asyncnet_run_calls"]  # by index: an object of its own each time
    function.argtypes = [ctypes.c_void_p] * 4
    function.restype = ctypes.c_int
    return function


def _check(run: Run, result: int, function: object, arguments: tuple[Any, ...]) -> int:
    if result == _LOOK:
        result = _go_on(run, *arguments)
    if result == _LEFT:
        raise DrainError
    if result == _STUCK:
        raise StuckError
    return result


def _go_on(run: Run, first: int, end: int, state: int, lane: int) -> int:
    """Take up a wait that has lasted long: Python handles signals in between, here alone."""
    told = LaneState.from_address(lane)
    result = _LOOK
    try:
        while result == _LOOK:
            result = run(told.progress, end, state, lane)
    finally:
        told.since = 0  # a handler may have raised: the next wait is another
    return result
