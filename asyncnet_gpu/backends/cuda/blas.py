"""Matrix products through cuBLAS: one handle and one workspace for each stream.

CuPy's own cuBLAS refuses to be captured, and one handle over several streams makes the results
depend on timing (cuBLAS library, section 2.1.4): so a program makes a handle for each of its
streams and gives it a workspace, whose size follows the largest product of the whole net. Equal
sizes in all modes make cuBLAS choose equal algorithms, and the bits equal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, final

import cupy
import numpy as np

from asyncnet_gpu.backends.cuda.device import OnDevice, compute_capability

try:
    from nvmath.bindings import cublas
except ImportError:  # the kernel in matmul.cu takes over
    cublas = None

_SMALLEST_WORKSPACE = 1 << 20
_LARGEST_INT = 2**31 - 1
#: Partial sums of a split product: cuBLAS splits small products into at most about this many.
_SPLITS = 16

_R_32F, _R_64F, _R_16F = 0, 1, 2  # cudaDataType_t
_N, _T = 0, 1  # cublasOperation_t
_DEFAULT_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT
_COMPUTE_32F, _COMPUTE_64F = 68, 70  # cublasComputeType_t

_DATA_TYPES = {"float32": _R_32F, "float64": _R_64F, "float16": _R_16F}


@final
class BlasHandle:
    """A cuBLAS handle bound to a stream, its workspace, and the factors that calls point to."""

    def __init__(self, device: int, stream: int) -> None:
        self.device = device
        self._workspace: Any = None
        with OnDevice(device):
            self.handle = cublas.create()
            cublas.set_stream(self.handle, stream)
        self._factors: dict[tuple[str, float], np.ndarray[Any, Any]] = {}

    def set_workspace(self, block: Any, nbytes: int) -> None:
        """Give the handle memory of its own; to be called before the first product."""
        self._workspace = block
        with OnDevice(self.device):
            cublas.set_workspace(self.handle, block.ptr, nbytes)

    def factor(self, value: float, dtype: str) -> int:
        """Return the address of a factor in host memory, stable as long as the handle."""
        wide = "float64" if dtype == "float64" else "float32"
        array = self._factors.setdefault((wide, value), np.array([value], wide))
        return int(array.ctypes.data)

    def close(self) -> None:
        """Destroy the handle; the stream is idle."""
        if self.handle:
            with OnDevice(self.device):
                cublas.destroy(self.handle)
            self.handle = 0
        self._workspace = None


def available() -> bool:
    """Whether cuBLAS can be called here."""
    return cublas is not None


def workspace_bytes(largest_product_bytes: int, device: int) -> int:
    """Return the workspace for a net whose largest product has so many bytes of output.

    NVIDIA's recommendation (cuBLAS library, ``cublasSetWorkspace``) is the upper bound.
    """
    bound = (32 << 20) if compute_capability(device) >= 9 else (4 << 20)
    wanted = max(_SMALLEST_WORKSPACE, _SPLITS * largest_product_bytes)
    return min(bound, -(-wanted // _SMALLEST_WORKSPACE) * _SMALLEST_WORKSPACE)


def _leading(matrix: Any) -> tuple[int, int] | None:
    """Return operation and leading dimension of a (rows, columns) matrix seen as column-major.

    The bytes of a row-major matrix are those of its transpose column by column: operation N then
    means "this matrix, transposed", which is what a product with swapped operands wants.
    """
    item = matrix.dtype.itemsize
    rows, columns = matrix.shape[-2:]
    row, column = matrix.strides[-2:]
    for operation, fast, slow, n_fast, n_slow in (
        (_N, column, row, columns, rows),
        (_T, row, column, rows, columns),
    ):
        if n_slow == 1:
            slow = n_fast * item
        if (n_fast == 1 or fast == item) and slow % item == 0 and slow >= n_fast * item:
            return operation, slow // item
    return None


def _batch_stride(array: Any, batch: tuple[int, ...]) -> int | None:
    """Return the distance in elements between products of a batch, or None if it is not one."""
    shape = (1,) * (len(batch) + 2 - array.ndim) + array.shape[:-2]
    strides = (0,) * (len(batch) + 2 - array.ndim) + array.strides[:-2]
    step: int | None = None
    span = 1
    for extent, own, stride in zip(
        reversed(batch), reversed(shape), reversed(strides), strict=True
    ):
        if extent == 1:
            continue
        stride = 0 if own == 1 else stride
        if step is None:
            step = stride
        elif stride != step * span:
            return None
        span *= extent
    if step is None:
        return 0
    # A transposed or repeated batch is fine; one that runs backwards is not taken by cuBLAS.
    return None if step < 0 or step % array.dtype.itemsize else step // array.dtype.itemsize


def bind_product(
    blas: BlasHandle, a: Any, b: Any, out: Any, alpha: float = 1.0, beta: float = 0.0
) -> Callable[[], object] | None:
    """Return a launch of ``out = alpha * a @ b + beta * out``; None where the layout forbids it.

    Parameters
    ----------
    a, b
        (..., m, k) and (..., k, n), leading axes broadcast; transposed views are not copied.
    out
        (..., m, n), C-contiguous. float16 is summed in float32.
    """
    dtype = out.dtype.name
    data_type = _DATA_TYPES.get(dtype)
    m, n = out.shape[-2:]
    k = a.shape[-1]
    if data_type is None or not out.size or not k or max(m, n, k) > _LARGEST_INT:
        return None
    left, right = _leading(a), _leading(b)
    batch = out.shape[:-2]
    stride_a, stride_b = _batch_stride(a, batch), _batch_stride(b, batch)
    if left is None or right is None or stride_a is None or stride_b is None:
        return None
    if max(left[1], right[1]) > _LARGEST_INT:
        return None
    compute = _COMPUTE_64F if dtype == "float64" else _COMPUTE_32F
    factors = blas.factor(alpha, dtype), blas.factor(beta, dtype)
    # Row-major out = a b is column-major out' = b' a': the operands change places.
    head = (blas.handle, right[0], left[0], n, m, k, factors[0], b.data.ptr, data_type, right[1])
    count = out.size // (m * n)
    if count == 1:
        return partial(
            cublas.gemm_ex, *head, a.data.ptr, data_type, left[1], factors[1], out.data.ptr,
            data_type, n, compute, _DEFAULT_ALGORITHM,
        )  # fmt: skip
    return partial(
        cublas.gemm_strided_batched_ex, *head, stride_b, a.data.ptr, data_type, left[1], stride_a,
        factors[1], out.data.ptr, data_type, n, m * n, count, compute, _DEFAULT_ALGORITHM,
    )  # fmt: skip


def is_blas_dtype(array: cupy.ndarray) -> bool:
    """Whether cuBLAS multiplies arrays of this dtype here."""
    return array.dtype.name in _DATA_TYPES
