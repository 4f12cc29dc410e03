"""Whether this process can use CUDA: one that was forked from a user of CUDA cannot."""

from __future__ import annotations

from typing import final

from asyncnet_gpu.errors import DeviceError, message
from asyncnet_gpu.forking import after_fork


@final
class Process:
    """Whether CUDA was used, here or before the fork."""

    def __init__(self) -> None:
        self._used = self._forked = False
        after_fork(self, Process._fork)

    def _fork(self) -> None:
        self._forked = self._used

    def use(self) -> None:
        """Note that CUDA is used from here on."""
        self.check()
        self._used = True

    def check(self) -> None:
        """Raise `DeviceError` where CUDA was used before a fork; asks the driver nothing."""
        if self._forked:
            raise DeviceError(
                message("cuda", "used before this process was forked",
                        expected="CUDA in one process", got="a forked child",
                        remedy='Begin children by multiprocessing.get_context("spawn") and compile '
                        "in each, for CUDA does not survive a fork.")
            )  # fmt: skip


PROCESS = Process()
