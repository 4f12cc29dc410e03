"""ONNX models as nets.

General layout: a file is parsed and its envelope checked (`reader`, `external`, `limits`), walked
node by node (`importer`) with each node translated where its family is written (`mapping`,
`nodes`), and what is known computed at once (`fold`). Free dimensions are bound by `dynamic`.
`backend` is the interface through which ONNX's own test suite runs against us. The way back is
`export`, with what differs written in `writers`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    import onnx as _onnx  # noqa: F401 - here, so that its absence is told once and plainly
except ImportError as error:
    raise ImportError(
        "asyncnet_gpu.onnx needs the package onnx: pip install 'asyncnet-gpu[onnx]'"
    ) from error

from asyncnet_gpu.errors import NetError, ShapeError, message
from asyncnet_gpu.onnx.context import NeedsValue
from asyncnet_gpu.onnx.dims import check_extents, describe_input
from asyncnet_gpu.onnx.dynamic import OnnxNet
from asyncnet_gpu.onnx.executable import OnnxExecutable
from asyncnet_gpu.onnx.export import export_model, save_onnx
from asyncnet_gpu.onnx.limits import Limits
from asyncnet_gpu.onnx.model import model_inputs
from asyncnet_gpu.onnx.ports import has_ports
from asyncnet_gpu.onnx.reader import read_model
from asyncnet_gpu.onnx.structured import StructuredExecutable, StructuredNet

if TYPE_CHECKING:
    from onnx import ModelProto

    from asyncnet_gpu.net import AsyncNet

__all__ = [
    "Limits",
    "OnnxExecutable",
    "OnnxNet",
    "StructuredExecutable",
    "StructuredNet",
    "export_model",
    "load_onnx",
    "save_onnx",
]


def load_onnx(
    source: str | os.PathLike[str] | bytes | ModelProto,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    values: Mapping[str, object] | None = None,
    limits: Limits | None = None,
) -> AsyncNet | OnnxNet | StructuredNet:
    """Load an ONNX model as a net; the file is not trusted.

    Parameters
    ----------
    source
        A path, the bytes of a file, or a parsed model. External data are read from the path's
        folder only.
    shapes
        Shapes of inputs whose extents the file leaves open.
    values
        Inputs to fix: they become constants, and what depends on them alone is computed now.
    limits
        Caps on what the file may ask for.

    Returns
    -------
    An `AsyncNet` with the model's names when every shape is known; else an `OnnxNet`, whose
    executable binds the free dimensions by the inputs of each run. A model that takes or gives
    more than tensors of numbers is a `StructuredNet`.

    Raises
    ------
    OnnxImportError
        If the file is broken, over a limit, or uses what is not supported; names the node.
    ShapeError
        If `shapes` or `values` contradict the file.
    """
    limits = Limits() if limits is None else limits
    model, external = read_model(source, limits)
    if has_ports(model, model_inputs(model)) and not shapes and not values:
        return StructuredNet(model, external, limits)
    entries = {entry.name: entry for entry in model_inputs(model)}
    _check_names(entries, {*(shapes or {}), *(values or {})})
    fixed = {name: _fixed(entries[name], value) for name, value in (values or {}).items()}
    net = OnnxNet(model, external, shapes or {}, fixed, limits)
    if not net.is_static:
        return net
    try:
        return net.static_net()
    except NeedsValue as needed:
        if not net.runs_in_stages(needed):
            net.bind_value(needed)
        return net


def _check_names(entries: Mapping[str, Any], names: set[str]) -> None:
    unknown = sorted(names - entries.keys())
    if unknown:
        raise NetError(
            message("load_onnx", f"no input {unknown[0]!r}", expected=", ".join(entries) or "none",
                    got=", ".join(unknown), remedy="Name inputs of the model.")
        )  # fmt: skip


def _fixed(entry: Any, value: object) -> np.ndarray[Any, Any]:
    """Return the value of an input as an array that the model takes."""
    dtype, extents = describe_input(entry, None)
    array = np.array(value, None if hasattr(value, "dtype") else dtype)
    check_extents(entry.name, extents, array.shape)
    if array.dtype != dtype:
        raise ShapeError(
            message("load_onnx", f"value of input {entry.name!r}", expected=dtype.name,
                    got=array.dtype.name, remedy="Convert the array.")
        )  # fmt: skip
    return array
