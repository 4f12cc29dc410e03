"""Carry something out in a forked child."""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable

LONG_S = 30.0


def in_child(work: Callable[[], None]) -> None:
    """Fork; assert that `work` returns in the child, without an exception and in time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)  # not the end of a pytest session
    until = time.monotonic() + LONG_S
    ended, status = 0, 0
    while not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"the child did not end within {LONG_S} s")
        time.sleep(0.005)
    assert os.waitstatus_to_exitcode(status) == 0, "see the child's traceback"
