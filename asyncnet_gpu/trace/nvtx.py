"""Steps as NVTX ranges, for Nsight Systems and other profilers of NVIDIA's."""

from __future__ import annotations

from typing import Any, final

from asyncnet_gpu.errors import NetError, message
from asyncnet_gpu.plan.types import Plan


@final
class NvtxRanges:
    """Opens a range around the run of a step (CPU) or its issue (devices); implements `Ranges`.

    Raises
    ------
    NetError
        If the package nvtx is missing.
    """

    def __init__(self, plan: Plan) -> None:
        try:
            import nvtx
        except ImportError as error:
            raise NetError(
                message("trace", "NVTX ranges need a package", expected="nvtx", got=str(error),
                        remedy="pip install nvtx, or leave nvtx=True out.")
            ) from error  # fmt: skip
        self._nvtx: Any = nvtx
        self._names = [f"{n.op.kind} {n.name}" for n in map(plan.node_of, plan.steps)]

    def begin(self, step: int) -> None:
        """Open the range of a step in the calling thread."""
        self._nvtx.push_range(message=self._names[step], domain="asyncnet")

    def end(self) -> None:
        """Close the range opened last in the calling thread."""
        self._nvtx.pop_range(domain="asyncnet")
