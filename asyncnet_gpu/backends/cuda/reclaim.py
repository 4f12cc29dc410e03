"""Frees what programs leave behind, as soon as freeing comes to an end.

The driver frees memory, graphs and handles only when the whole device is idle. While a run that was
given up is still under way, that may never be: what is to be freed meanwhile is kept for later.

Nothing here takes a lock, for the collector may close an executable in the middle of any line.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable

_under_way: list[Callable[[], bool]] = []  # of runs that were given up: whether they have ended
_left: deque[Callable[[], None]] = deque()


def give_up(ended: Callable[[], bool], free: Callable[[], None]) -> None:
    """Call `free` some time after `ended` says that the device has come to the end of a run."""
    _under_way.append(ended)  # first: another thread may be looking
    _left.append(free)


def release(free: Callable[[], None]) -> None:
    """Call `free`, at once unless a run that was given up is under way."""
    _left.append(free)
    reclaim()


def reclaim() -> None:
    """Free what is left, unless a run that was given up is under way; never waits for one."""
    for ended in list(_under_way):
        if ended():
            with contextlib.suppress(ValueError):  # another thread was here first
                _under_way.remove(ended)
    while _left and not _under_way:
        try:
            free = _left.popleft()
        except IndexError:  # another thread was here first
            return
        free()


def n_under_way() -> int:
    """Return how many runs that were given up are under way, as of the last look."""
    return len(_under_way)
