"""How many threads the BLAS library may use while runs are under way.

Several streams that each call a threaded BLAS would fight for the cores, and a matrix product can
round differently with another number of threads: a net that may run on several streams therefore
uses one number in every mode. The setting is global to the process, so it is counted: the first run
sets it, the last one puts back what was there.

threadpoolctl lets only the thread that first set a limit set it again, as long as that thread
lives, and ignores all others without a word. Runs come from any thread, so the governor, which does
the counting itself, takes that right before it sets anything and gives it up afterwards.
"""

from __future__ import annotations

import threading
from typing import Any

from threadpoolctl import ThreadpoolController

from asyncnet_gpu.forking import now_and_after_fork


class BlasGovernor:
    """Counts the runs that want a limit; setting and restoring cost a few microseconds."""

    def __init__(self) -> None:
        self._libraries: list[Any] | None = None
        self._before: list[int] = []
        self._users: set[object] = set()
        now_and_after_fork(self, BlasGovernor._begin)

    def _begin(self) -> None:
        """Have a lock of this process; end the uses by runs that are under way in the parent."""
        self._lock = threading.Lock()
        self._users.clear()
        self._restore()

    def acquire(self, n_threads: int, user: object) -> None:
        """Limit the BLAS libraries to `n_threads` until `release` is called for this user."""
        with self._lock:
            if self._users:
                self._users.add(user)
                return
            if self._libraries is None:
                controller = ThreadpoolController().select(user_api="blas")
                self._libraries = list(controller.lib_controllers)
            self._before = [library.get_num_threads() for library in self._libraries]
            self._users.add(user)  # before anything is set: whoever is interrupted here, releases
            for library, before in zip(self._libraries, self._before, strict=True):
                if before != n_threads:
                    _set(library, n_threads)

    def release(self, user: object) -> None:
        """End a use that was acquired and not ended before, else nothing.

        The last one restores the numbers found by the first.
        """
        with self._lock:
            if user not in self._users:
                return
            self._users.discard(user)
            if not self._users:
                self._restore()

    def _restore(self) -> None:
        # Empty when no use is under way: in a forked child nothing is put back then.
        for library, before in zip(self._libraries or (), self._before, strict=False):
            if library.get_num_threads() != before:
                _set(library, before)
        self._before = []


def _set(library: Any, n_threads: int) -> None:
    """Set the number, whichever thread set it last."""
    clear = getattr(library, "clear_controlling_thread", None)  # OpenBLAS alone has such a right
    if clear is not None:
        clear(force=True)
    library.set_num_threads(n_threads)
    if clear is not None:
        clear(force=True)


GOVERNOR = BlasGovernor()
