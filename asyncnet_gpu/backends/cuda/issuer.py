"""A thread that issues for a program, so that its caller comes back when a launch does not."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Any, final

from asyncnet_gpu.errors import DeviceError, message


@final
class Issuer:
    """Runs one call at a time; sleeps between them."""

    def __init__(self, name: str) -> None:
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._call: Callable[[], None] | None = None
        self._done: Any = None
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise DeviceError(
                message("cuda", "cannot start a thread", expected="a thread that issues",
                        got=str(error), remedy="Lower slots.")
            ) from error  # fmt: skip

    def go(self, call: Callable[[], None]) -> Any:
        """Run `call` in the thread; returns a lock that is released when it has returned."""
        done = _thread.allocate_lock()
        done.acquire()
        self._call, self._done = call, done
        self._wake.release()
        return done

    def _loop(self) -> None:
        while True:
            self._wake.acquire()  # idle between runs; `stop` wakes it
            call, done, self._call = self._call, self._done, None
            if call is None:
                return
            try:
                call()
            finally:
                done.release()
            del call  # what the run held belongs to the caller, not to an idle thread

    def stop(self) -> None:
        """End the thread after the call under way."""
        if self._wake.locked():
            self._wake.release()
