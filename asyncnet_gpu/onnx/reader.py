"""From a path or bytes to a checked `ModelProto`; nothing in the file is believed yet.

Only the envelope is checked here: it parses, is not too large, nests not too deep, and asks for
operator sets that we know. Nodes are checked by the importer when it comes to them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NoReturn

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto

from asyncnet_gpu.errors import OnnxImportError, message
from asyncnet_gpu.onnx.external import ExternalData
from asyncnet_gpu.onnx.limits import Budget, Limits

#: Newest operator set of the default domain in the installed onnx.
NEWEST_OPSET = onnx.defs.onnx_opset_version()


def _fail(what: str, expected: object, got: object, remedy: str) -> NoReturn:
    raise OnnxImportError(message("onnx", what, expected=expected, got=got, remedy=remedy))


def read_model(
    source: str | os.PathLike[str] | bytes | ModelProto, limits: Limits
) -> tuple[ModelProto, ExternalData]:
    """Parse a model and check its envelope.

    Returns
    -------
    The model and the reader of its external data.

    Raises
    ------
    OnnxImportError
        If the file cannot be read, is no model, or is over a limit.
    """
    if isinstance(source, ModelProto):
        model, folder = source, None
    elif isinstance(source, (bytes, bytearray, memoryview)):
        model, folder = _parse(bytes(source), limits), None
    else:
        path = os.fspath(source)
        model, folder = _parse(_read_file(path, limits), limits), os.path.dirname(path) or "."
    _check_envelope(model, limits)
    return model, ExternalData(folder)


def _read_file(path: str, limits: Limits) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(limits.max_file_bytes + 1)
    except (OSError, ValueError) as error:
        _fail("cannot read the model", "a readable file", f"{path}: {error}", "Check the path.")
    return data


def _parse(data: bytes, limits: Limits) -> ModelProto:
    if len(data) > limits.max_file_bytes:
        _fail("file over the limit", f"at most {limits.max_file_bytes} bytes", len(data),
              "If you trust the file, load it with Limits(max_file_bytes=...).")  # fmt: skip
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        _fail("not an ONNX model", "a serialised ModelProto", error, "Check the file.")
    return model


def opsets_of(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Return the version of each domain that is imported; the default domain is ''."""
    return {plain_domain(str(entry.domain)): int(entry.version) for entry in imports}


def plain_domain(domain: str) -> str:
    """Return the domain with one name for the default one."""
    return "" if domain == "ai.onnx" else domain


def _check_envelope(model: ModelProto, limits: Limits) -> None:
    if not model.HasField("graph"):
        _fail("no graph", "a model with a graph", "none", "Check the file.")
    if not model.graph.output:
        _fail("no outputs", "at least one", "none", "Check the file.")
    opset = opsets_of(model.opset_import).get("", 1)
    if not 1 <= opset <= NEWEST_OPSET:
        _fail("operator set", f"1 to {NEWEST_OPSET}", opset,
              "Update onnx, or convert the model to an older operator set.")  # fmt: skip
    budget = Budget(limits)
    _count(model.graph, budget, 0)
    for function in model.functions:
        where = f"onnx function {function.name!r}"
        _check_names(where, function.name, function.domain, *function.input, *function.output)
        for node in function.node:
            _count_node(node, budget, 1)


def _check_names(where: str, *names: object) -> None:
    """Refuse names that are no text: protobuf gives bytes that are not UTF-8 as they are."""
    for name in names:
        if not isinstance(name, str):
            raise OnnxImportError(
                message(where[:200], "name", expected="UTF-8 text", got=repr(name)[:200],
                        remedy="The file is broken.")
            )  # fmt: skip


def _count(graph: GraphProto, budget: Budget, depth: int) -> None:
    """Count nodes through all subgraphs; protobuf's own limit on nesting bounds the recursion."""
    where = f"onnx graph {graph.name!r}"
    budget.depth(depth, where)
    entries = (*graph.input, *graph.output, *graph.initializer)
    _check_names(where, graph.name, *[entry.name for entry in entries])
    _check_names(where, *[sparse.values.name for sparse in graph.sparse_initializer])
    for node in graph.node:
        _count_node(node, budget, depth)


def _count_node(node: onnx.NodeProto, budget: Budget, depth: int) -> None:
    where = f"onnx node {node.name!r}"
    budget.node(where)
    _check_names(where, node.name, node.op_type, node.domain, *node.input, *node.output)
    _check_names(where, *[text for a in node.attribute for text in (a.name, a.ref_attr_name)])
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            _count(attribute.g, budget, depth + 1)
        elif attribute.type == AttributeProto.GRAPHS:
            for graph in attribute.graphs:
                _count(graph, budget, depth + 1)
