"""A convolution in the words of cuDNN's front end; knows neither CuPy nor a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Name in cuDNN by name in NumPy.
DATA_TYPES = {"float16": "HALF", "float32": "FLOAT"}


@dataclass(frozen=True, slots=True)
class ConvKey:
    """What a plan of cuDNN depends on; each tensor as (extents, strides in elements)."""

    dtype: str
    x: tuple[tuple[int, ...], tuple[int, ...]]
    w: tuple[tuple[int, ...], tuple[int, ...]]
    out: tuple[tuple[int, ...], tuple[int, ...]]
    bias: bool
    begin: tuple[int, ...]
    end: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]


def unwanted(cudnn: Any, dtype: str) -> list[Any]:
    """Return the notes of plans whose results vary, or that round float32 factors."""
    notes = [cudnn.numerical_note.NONDETERMINISTIC]
    if dtype == "float32":
        notes += [cudnn.numerical_note.DOWN_CONVERT_INPUTS, cudnn.numerical_note.TENSOR_CORE]
    return notes


def describe(cudnn: Any, key: ConvKey, handle: Any) -> tuple[Any, dict[str, Any]]:
    """Return the graph of cuDNN and its tensors by name."""
    io = getattr(cudnn.data_type, DATA_TYPES[key.dtype])
    wide = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=io, intermediate_data_type=wide, compute_data_type=wide, handle=handle
    )
    tensors = {
        name: graph.tensor(name=name, dim=list(dim), stride=list(stride), data_type=io)
        for name, (dim, stride) in (("x", key.x), ("w", key.w))
    }
    result = graph.conv_fprop(
        image=tensors["x"], weight=tensors["w"], pre_padding=list(key.begin),
        post_padding=list(key.end), stride=list(key.strides), dilation=list(key.dilations),
        compute_data_type=wide,
    )  # fmt: skip
    if key.bias:
        channels = key.w[0][0]
        ones = [1] * (len(key.x[0]) - 2)
        tensors["bias"] = graph.tensor(
            name="bias", dim=[1, channels, *ones], stride=[channels, 1, *ones], data_type=io
        )
        result = graph.bias(name="add_bias", input=result, bias=tensors["bias"])
    result.set_output(True).set_data_type(io)
    result.set_dim(list(key.out[0])).set_stride(list(key.out[1]))
    tensors["out"] = result
    return graph, tensors
