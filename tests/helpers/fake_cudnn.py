"""A stand-in for the module ``cudnn`` that knows one graph, a convolution with an optional bias.

It takes the calls that `asyncnet_gpu.backends.cuda.dnn` makes, under the names of the real front
end, and does the sums with CuPy on the stream of the handle: so the binding, the stream, the shared
workspace, moving inputs and capture are tested where cuDNN is not. That the real front end takes
the same calls is another test's.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cupy

data_type = SimpleNamespace(HALF="float16", FLOAT="float32")
heur_mode = SimpleNamespace(A="A", FALLBACK="FALLBACK")
numerical_note = SimpleNamespace(NONDETERMINISTIC="nd", DOWN_CONVERT_INPUTS="dci", TENSOR_CORE="tc")

WORKSPACE = 4096
handles: list[Any] = []  # every handle made and not destroyed
graphs: list[Any] = []  # every graph built
executed: list[int] = []  # the stream of each launch


def backend_version() -> int:
    return 92000


def create_handle() -> Any:
    handles.append(SimpleNamespace(stream=0))
    return handles[-1]


def set_stream(handle: Any, stream: int) -> None:
    handle.stream = stream


def destroy_handle(handle: Any) -> None:
    handles.remove(handle)


class _Borrowed:
    def __init__(self, stream: int) -> None:
        self.stream = stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.stream


class Tensor:
    def __init__(self, dim: list[int], stride: list[int], data_type: str) -> None:
        self.dim, self.stride, self.dtype = dim, stride, data_type

    def set_output(self, value: bool) -> Tensor:
        return self

    def set_data_type(self, dtype: str) -> Tensor:
        self.dtype = dtype
        return self

    def set_dim(self, dim: list[int]) -> Tensor:
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        self.stride = stride
        return self

    def array(self, ptr: int) -> Any:
        dtype = cupy.dtype(self.dtype)
        span = sum((n - 1) * s for n, s in zip(self.dim, self.stride, strict=True)) + 1
        block = cupy.cuda.UnownedMemory(ptr, span * dtype.itemsize, None)
        strides = [s * dtype.itemsize for s in self.stride]
        return cupy.ndarray(self.dim, dtype, cupy.cuda.MemoryPointer(block, 0), strides)


class pygraph:
    refuses = False

    def __init__(self, *, io_data_type: str, intermediate_data_type: str,
                 compute_data_type: str, handle: Any) -> None:  # fmt: skip
        self.bias_tensor: Tensor | None = None
        self.done: list[str] = []
        graphs.append(self)

    def tensor(self, *, name: str, dim: list[int], stride: list[int], data_type: str) -> Tensor:
        return Tensor(dim, stride, data_type)

    def conv_fprop(
        self, *, image: Tensor, weight: Tensor, pre_padding: list[int], post_padding: list[int],
        stride: list[int], dilation: list[int], compute_data_type: str,
    ) -> Tensor:  # fmt: skip
        self.x, self.w = image, weight
        self.begin, self.end, self.step, self.dilation = pre_padding, post_padding, stride, dilation
        self.out = Tensor([], [], compute_data_type)
        return self.out

    def bias(self, *, name: str, input: Tensor, bias: Tensor) -> Tensor:  # noqa: A002
        self.bias_tensor = bias
        return self.out

    def validate(self) -> None:
        if self.refuses:
            raise RuntimeError("no engine")

    def build_operation_graph(self) -> None:
        self.done.append("build_operation_graph")

    def create_execution_plans(self, modes: list[str]) -> None:
        assert modes == ["A", "FALLBACK"]

    def deselect_numeric_notes(self, notes: list[str]) -> None:
        assert "nd" in notes

    def deselect_workspace_greater_than(self, limit: int) -> None:
        assert limit >= WORKSPACE

    def check_support(self) -> None:
        self.done.append("check_support")

    def build_plans(self) -> None:
        self.done.append("build_plans")

    def get_workspace_size(self) -> int:
        return WORKSPACE

    def execute(self, pack: dict[Tensor, int], workspace: int, handle: Any) -> None:
        executed.append(handle.stream)
        assert workspace
        stream = cupy.cuda.Stream.from_external(_Borrowed(handle.stream))
        x, w, out = (t.array(pack[t]) for t in (self.x, self.w, self.out))
        with stream:
            # Written as cuDNN writes: whatever stands in the workspace does not matter.
            block = cupy.cuda.UnownedMemory(workspace, WORKSPACE, None)
            cupy.cuda.MemoryPointer(block, 0).memset_async(0xFF, WORKSPACE, stream)
            self._convolve(x, w, out)
            if self.bias_tensor is not None:
                out += self.bias_tensor.array(pack[self.bias_tensor])

    def _convolve(self, x: Any, w: Any, out: Any) -> None:
        groups = x.shape[1] // w.shape[1]
        pads = [(0, 0), (0, 0), *zip(self.begin, self.end, strict=True)]
        x = cupy.pad(x, pads)
        out[...] = 0
        m = w.shape[0] // groups
        for tap in _places(w.shape[2:]):
            cut = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, s, n in zip(tap, self.dilation, self.step, out.shape[2:], strict=True)
            )
            read = x[(slice(None), slice(None), *cut)]
            for group in range(groups):
                c = w.shape[1]
                for channel in range(m):
                    row = group * m + channel
                    factors = w[(row, slice(None), *tap)].reshape(1, c, *[1] * len(tap))
                    part = read[:, group * c : (group + 1) * c] * factors
                    out[:, row] += part.sum(axis=1)


def _places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    places: list[tuple[int, ...]] = [()]
    for extent in shape:
        places = [(*p, i) for p in places for i in range(extent)]
    return places
