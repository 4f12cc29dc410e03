"""Frees what programs leave behind, as soon as freeing comes to an end.

The driver frees memory, graphs and handles only when the whole device is idle. While a run that was
given up keeps it busy, that may never be: what is to be freed meanwhile is kept for later.

Nothing here takes a lock, for the collector may close an executable in the middle of any line.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from asyncnet_gpu.forking import after_fork

Check = Callable[[], bool]
Free = Callable[[], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Stuck:
    """A run that was given up: whose it is, whether it has ended, whether the device has."""

    owner: object
    ended: Check
    idle: Check


@final
class Reclaimer:
    """What is to be freed, and the runs that are in the way."""

    def __init__(self) -> None:
        self._stuck: list[_Stuck] = []
        self._left: deque[tuple[Free, object]] = deque()
        self._of_parents: list[object] = []
        after_fork(self, Reclaimer._leave_to_parent)

    def _leave_to_parent(self) -> None:
        # Kept, not dropped: to free it is up to the parent, also what Python would free.
        self._of_parents.append((self._stuck, self._left))
        self._stuck, self._left = [], deque()

    def give_up(self, owner: object, ended: Check, idle: Check, free: Free) -> None:
        """Call `free` some time after a run has ended that nobody waits for any more.

        Parameters
        ----------
        owner
            Whoever has buffers that the run may still use.
        ended
            Whether neither host nor device will do anything more for it.
        idle
            Whether the device does nothing for it just now.
        """
        self._stuck.append(_Stuck(owner, ended, idle))  # first: another thread may be looking
        self._left.append((free, owner))

    def release(self, free: Free, owner: object = None) -> None:
        """Call `free`: at once, unless a run is in the way, of the owner or on the device."""
        self._left.append((free, owner))
        self.reclaim()

    def reclaim(self) -> None:
        """Free what can be freed without waiting for a run that was given up."""
        for stuck in list(self._stuck):
            if stuck.ended():
                with contextlib.suppress(ValueError):  # another thread was here first
                    self._stuck.remove(stuck)
        for _ in range(len(self._left)):
            try:
                free, owner = self._left.popleft()
            except IndexError:  # another thread was here first
                return
            # Looked at after it was taken: what is given up by now is not freed.
            stuck_now = list(self._stuck)
            if not all(stuck.idle() for stuck in stuck_now):
                self._left.appendleft((free, owner))
                return
            if any(stuck.owner is owner for stuck in stuck_now):
                self._left.append((free, owner))
            else:
                free()

    @property
    def n_stuck(self) -> int:
        """Runs that were given up and had not ended at the last look."""
        return len(self._stuck)

    @property
    def n_left(self) -> int:
        """Calls of `free` that are to come."""
        return len(self._left)


RECLAIMER = Reclaimer()
