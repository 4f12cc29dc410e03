"""Run a net of operators as concurrently as the hardware allows.

General layout: a net definition (`net`) is resolved into a graph (`graph`, `passes`, `place`), laid
out into a plan (`plan`), proven (`verify`), carried out by a backend (`backends`) and waited for as
a run (`run`). This file only names what is public; `api.compile` is the map.
"""

from asyncnet_gpu.api import compile, load_onnx, to_numpy  # noqa: A004 - see there
from asyncnet_gpu.barrier import AsyncBarrierOp, AsyncNetBarrier, AsyncNetBarrierOp
from asyncnet_gpu.blob import Blob
from asyncnet_gpu.errors import (
    AsyncNetError,
    DeadlineExceeded,
    DeviceError,
    InternalError,
    NetError,
    OnnxImportError,
    OutOfDeviceMemoryError,
    PlanError,
    QueueFull,
    RunCancelled,
    ShapeError,
    UnsupportedOpError,
    VerificationError,
)
from asyncnet_gpu.executor import Executable
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.run import Run
from asyncnet_gpu.specs import TensorSpec

__version__ = "0.1.0"

__all__ = [
    "AsyncBarrierOp",
    "AsyncNet",
    "AsyncNetBarrier",
    "AsyncNetBarrierOp",
    "AsyncNetError",
    "Blob",
    "DeadlineExceeded",
    "DeviceError",
    "Executable",
    "InternalError",
    "NetError",
    "OnnxImportError",
    "OutOfDeviceMemoryError",
    "Plan",
    "PlanError",
    "QueueFull",
    "Run",
    "RunCancelled",
    "ShapeError",
    "TensorSpec",
    "UnsupportedOpError",
    "VerificationError",
    "__version__",
    "compile",
    "load_onnx",
    "to_numpy",
]
