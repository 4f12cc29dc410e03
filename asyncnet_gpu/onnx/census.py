"""What a model file is made of, without importing it: operators, supported or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, defs

from asyncnet_gpu.onnx import mapping
from asyncnet_gpu.onnx.reader import opsets_of, plain_domain


@dataclass(frozen=True, slots=True)
class OperatorCount:
    """An operator of a model.

    Attributes
    ----------
    domain, op_type
        Its name; the domain is "" for ONNX's own.
    count
        Nodes, through all subgraphs and functions.
    support
        "yes" (one of our operators, or translated), "function" (by its definition in simpler
        operators) or "no".
    """

    domain: str
    op_type: str
    count: int
    support: str

    @property
    def name(self) -> str:
        """Name with the domain in front where it is not ONNX's own."""
        return f"{self.domain}::{self.op_type}" if self.domain else self.op_type


def count_operators(model: ModelProto) -> list[OperatorCount]:
    """Return the operators of a model, most frequent first."""
    functions = {(plain_domain(f.domain), f.name) for f in model.functions}
    counts: dict[tuple[str, str], int] = {}
    versions = opsets_of(model.opset_import)
    for node in _nodes(model.graph):
        key = plain_domain(node.domain), node.op_type
        counts[key] = counts.get(key, 0) + 1
    for function in model.functions:
        versions = {**opsets_of(function.opset_import), **versions}
        for outer in function.node:
            for node in (outer, *_inner(outer)):
                key = plain_domain(node.domain), node.op_type
                counts[key] = counts.get(key, 0) + 1
    found = [
        OperatorCount(*key, count, "yes" if key in functions else _support(*key, versions))
        for key, count in counts.items()
    ]
    return sorted(found, key=lambda entry: (-entry.count, entry.domain, entry.op_type))


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        yield from _inner(node)


def _inner(node: NodeProto) -> Iterator[NodeProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield from _nodes(attribute.g)
        elif attribute.type == AttributeProto.GRAPHS:
            for graph in attribute.graphs:
                yield from _nodes(graph)


def _support(domain: str, op_type: str, versions: Mapping[str, int]) -> str:
    version = versions.get(domain, 1)
    if mapping.find(domain, op_type, version) is not None:
        return "yes"
    try:
        schema = defs.get_schema(op_type, version, domain)
    except defs.SchemaError:
        return "no"
    if schema.has_context_dependent_function:
        return "function"  # its body depends on the types at hand: the import has the last word
    if not schema.has_function:
        return "no"
    inner = {(plain_domain(n.domain), n.op_type) for n in schema.function_body.node}
    return "no" if any(_support(*key, versions) == "no" for key in inner) else "function"
