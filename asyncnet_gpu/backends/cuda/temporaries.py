"""Memory for what launches allocate while they run; what a captured graph uses stays."""

from __future__ import annotations

import contextlib
from typing import Any, final

import cupy
from cupy.cuda import memory

from asyncnet_gpu.backends.cuda.faults import driver_errors, is_out_of_memory


@final
class Temporaries:
    """A slot's own pool. Blocks are reused on the stream that freed them only: one pool for all.

    When the device is full, a pool of CuPy's gives the blocks that it holds back and tries again.
    Those that were used while capturing must not go, for every replay writes them: they are put
    out of the pool's reach after the capture, and a capture during which the device was full
    (`was_full`) cannot be used.
    """

    def __init__(self) -> None:
        self._pool = cupy.cuda.MemoryPool(self._allocate)
        self._kept: list[Any] = []
        self.was_full = False

    def _allocate(self, nbytes: int) -> Any:
        try:
            return memory.MemoryPointer(memory.Memory(nbytes), 0)
        except driver_errors() as error:
            self.was_full = self.was_full or is_out_of_memory(error)
            raise

    def malloc(self, nbytes: int) -> Any:
        """Return memory for the current device and stream."""
        return self._pool.malloc(nbytes)

    def keep(self) -> None:
        """Keep all that was allocated so far as long as the slot; begin a new pool."""
        self._kept.append(self._pool)
        self._pool = cupy.cuda.MemoryPool(self._allocate)

    def close(self) -> None:
        """Give everything back; nothing is under way."""
        for pool in (*self._kept, self._pool):
            with contextlib.suppress(*driver_errors()):
                pool.free_all_blocks()
        self._kept = []
