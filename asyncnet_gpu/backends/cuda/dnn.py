"""Convolutions through cuDNN's graphs, where the package ``nvidia-cudnn-frontend`` is installed.

A handle for each stream, as for cuBLAS: cuDNN launches on the stream of its handle. Plans that are
not deterministic are left out, and for float32 those that round their factors (TensorFloat-32), so
that all modes give the same bits and the error bound is that of float32. Workspaces are memory of
the stream, found when steps are bound: cuDNN allocates nothing in a run, nor while it is captured.

Source: cuDNN front end, "Workflow" and "Convolution" of its developer guide.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from asyncnet_gpu.backends.cuda.arrays import allocate
from asyncnet_gpu.backends.cuda.device import OnDevice
from asyncnet_gpu.backends.cuda.dnn_graph import DATA_TYPES, ConvKey, describe, unwanted

_log = logging.getLogger(__name__)

#: Plans that want more memory than this are left out: every stream has its own.
WORKSPACE_LIMIT = 64 << 20


@functools.cache
def library() -> Any:
    """Return the module ``cudnn``, or None where it or the library under it is missing."""
    try:
        import cudnn

        cudnn.backend_version()
    except Exception as error:  # a missing libcudnn or driver has an error class of its own
        if not isinstance(error, ImportError):
            _log.warning("cuDNN is installed but cannot be used: %s", error)
        return None
    return cudnn


def make_handle(device: int, stream: int) -> DnnHandle | None:
    """Return a handle, or None where cuDNN refuses the device."""
    try:
        return DnnHandle(device, stream)
    except Exception as error:  # its classes vary by release; our kernel does the step instead
        _log.warning("cuDNN makes no handle on device %d: %s", device, error)
        return None


def takes(dtype: str) -> bool:
    """Whether cuDNN can be called here on arrays of this dtype."""
    return dtype in DATA_TYPES and library() is not None


@dataclass(frozen=True, slots=True)
class _Plan:
    graph: Any
    tensors: Mapping[str, Any]


@final
class DnnHandle:
    """A cuDNN handle bound to a stream, its plans and the workspace that they share.

    Steps on one stream follow one another, so that one workspace serves them all.
    """

    def __init__(self, device: int, stream: int) -> None:
        self.device = device
        self._workspace: Any = None
        self._workspace_bytes = 0
        self._plans: dict[ConvKey, _Plan | None] = {}
        with OnDevice(device):
            self._handle = library().create_handle()
            library().set_stream(handle=self._handle, stream=stream)

    def bind(self, key: ConvKey, addresses: Mapping[str, int]) -> Callable[[], object] | None:
        """Return a launch of the convolution; None where cuDNN has no plan for it.

        Parameters
        ----------
        addresses
            Of "x", "w", "out" and perhaps "bias".
        """
        if key not in self._plans:  # also remembered when there is none: inputs move every run
            with OnDevice(self.device):
                self._plans[key] = self._build(key)
        plan = self._plans[key]
        if plan is None:
            return None
        pack = {plan.tensors[name]: address for name, address in addresses.items()}
        return partial(self._execute, plan.graph, pack)

    def _execute(self, graph: Any, pack: dict[Any, int]) -> None:
        workspace = self._workspace.ptr if self._workspace is not None else 0
        graph.execute(pack, workspace, handle=self._handle)

    def _build(self, key: ConvKey) -> _Plan | None:
        try:
            graph, tensors = describe(library(), key, self._handle)
            graph.validate()
            graph.build_operation_graph()
            modes = library().heur_mode
            graph.create_execution_plans([modes.A, modes.FALLBACK])
            graph.deselect_numeric_notes(unwanted(library(), key.dtype))
            graph.deselect_workspace_greater_than(WORKSPACE_LIMIT)
            graph.check_support()
            graph.build_plans()
            nbytes = int(graph.get_workspace_size())
        except Exception as error:  # its classes vary by release; our kernel does the step instead
            _log.info("no cuDNN plan for %s: %s", key, error)
            return None
        if nbytes > self._workspace_bytes:
            # Looked up by each launch: no step runs while steps are being bound.
            self._workspace, self._workspace_bytes = allocate(nbytes, self.device), nbytes
        return _Plan(graph, tensors)

    def close(self) -> None:
        """Destroy the handle; the stream is idle."""
        self._plans.clear()
        handle, self._handle = self._handle, None
        if handle is not None:
            with OnDevice(self.device):
                library().destroy_handle(handle)
        self._workspace = None
