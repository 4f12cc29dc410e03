"""A whole model as a net: its inputs, its graph, its outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto

from asyncnet_gpu.errors import OnnxImportError, message
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx.context import Value
from asyncnet_gpu.onnx.external import ExternalData
from asyncnet_gpu.onnx.importer import Importer, Scope
from asyncnet_gpu.onnx.limits import Budget, Limits
from asyncnet_gpu.onnx.narrow import NARROW, Narrow
from asyncnet_gpu.onnx.ports import Layout, Leaf, assemble, leaves, results, text_array
from asyncnet_gpu.onnx.reader import opsets_of, plain_domain
from asyncnet_gpu.onnx.tensors import element_dtype

Array = np.ndarray[Any, Any]


def import_model(
    model: ModelProto, external: ExternalData, shapes: Mapping[str, Sequence[int]],
    values: Mapping[str, Array], limits: Limits, layout: Mapping[str, Layout] | None = None,
) -> AsyncNet:  # fmt: skip
    """Import a model whose input shapes are all given.

    Parameters
    ----------
    shapes
        For every input that is no initializer.
    values
        Inputs that are bound to a value and so are none of the net.
    layout
        Of inputs that are no plain tensors; `shapes` and `values` go by the names of their parts.

    Raises
    ------
    OnnxImportError
        If the model is broken, over a limit or not supported.
    NeedsValue
        If shapes depend on the values of further inputs.
    """
    graph = model.graph
    budget = Budget(limits)
    importer = Importer(
        AsyncNet(graph.name[:200] or "onnx"), budget, external,
        {(plain_domain(f.domain), f.name): f for f in model.functions},
    )  # fmt: skip
    opsets = opsets_of(model.opset_import)
    if "" not in opsets and model.ir_version < 3:
        opsets[""] = 1
    scope = Scope(None, opsets, 0)
    layout = layout or {}
    tensors = {leaf.name: _part(importer, leaf, shapes, values)
               for leaf in model_leaves(model, layout)}  # fmt: skip
    inputs: dict[str, Value] = {
        entry.name: assemble(entry.name, layout.get(entry.name, "tensor"), tensors)
        for entry in model_inputs(model)
    }
    found = importer.graph(graph, inputs, scope)
    for entry, value in zip(graph.output, found, strict=True):
        for name, tensor in results(entry.name, entry.type, value):
            if name in importer.net.outputs:
                raise OnnxImportError(
                    message(f"onnx output {name[:200]!r}", "name", expected="different texts",
                            got="a second one", remedy="The file is broken.")
                )  # fmt: skip
            importer.net.output(**{name: importer.blob(tensor)})
    return importer.net


def _part(
    importer: Importer, leaf: Leaf, shapes: Mapping[str, Sequence[int]],
    values: Mapping[str, Array],
) -> Value:  # fmt: skip
    """Return the value of one tensor that crosses the border: bound, or an input of the net."""
    if leaf.is_text:
        return text_array(values[leaf.name])
    narrow, where = NARROW.get(leaf.element_type), f"onnx input {leaf.name[:200]!r}"
    value: Any = values.get(leaf.name)
    if value is None:
        dtype = element_dtype(leaf.element_type, where) if narrow is None else narrow.codes
        importer.budget.tensor(shapes[leaf.name], dtype.itemsize, where)
        value = importer.input(leaf.name, shapes[leaf.name], dtype)
    return value if narrow is None else Narrow(value, leaf.element_type)


def model_leaves(model: ModelProto, layout: Mapping[str, Layout]) -> list[Leaf]:
    """Return the tensors that the inputs of a model consist of."""
    found: list[Leaf] = []
    for entry in model_inputs(model):
        found += leaves(entry.name, entry.type, layout.get(entry.name, "tensor"))
    return found


def model_inputs(model: ModelProto) -> list[Any]:
    """Return the inputs that a caller gives: older files list the initializers among them."""
    made = {t.name for t in model.graph.initializer}
    made.update(s.values.name for s in model.graph.sparse_initializer)
    found = [entry for entry in model.graph.input if entry.name not in made]
    for name, count in Counter(entry.name for entry in found).items():
        if not name or not isinstance(name, str) or count > 1:
            raise OnnxImportError(
                message(f"onnx input {name[:200]!r}", "name", expected="different texts, not empty",
                        got=name[:200], remedy="The file is broken.")
            )  # fmt: skip
    return found
