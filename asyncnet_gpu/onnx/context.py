"""`NodeContext`: what a translation sees of the node that it translates.

A value is a blob of the net, an array when it is known already, or a list of values (an ONNX
sequence; it exists while importing only).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, final

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto

from asyncnet_gpu.blob import Blob
from asyncnet_gpu.errors import OnnxImportError, message
from asyncnet_gpu.onnx.narrow import Narrow, widen

if TYPE_CHECKING:
    from asyncnet_gpu.onnx.importer import Importer, Scope

Array = np.ndarray[Any, Any]
Tensor: TypeAlias = "Blob | Array"
Value: TypeAlias = "Blob | Array | Narrow | list[Any] | None"

_NAMES = {
    AttributeProto.FLOAT: "float", AttributeProto.INT: "int", AttributeProto.STRING: "string",
    AttributeProto.TENSOR: "tensor", AttributeProto.GRAPH: "graph", AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints", AttributeProto.STRINGS: "strings",
    AttributeProto.SPARSE_TENSOR: "sparse tensor",
}  # fmt: skip


class NeedsValue(OnnxImportError):
    """A node needs the value, not only the shape, of inputs of the model.

    Attributes
    ----------
    inputs
        Their names.
    position
        Of the node in the model's graph, None for one inside another.
    """

    def __init__(self, text: str, inputs: frozenset[str]) -> None:
        super().__init__(text)
        self.inputs = inputs
        self.position: int | None = None


@final
class NodeContext:
    """One node and the net that it becomes part of.

    Attributes
    ----------
    node
        As in the file. Nothing in it has been checked.
    opset
        Version of the node's domain.
    """

    __slots__ = ("_attributes", "_importer", "_values", "node", "opset", "scope")

    def __init__(
        self, importer: Importer, scope: Scope, node: NodeProto, values: list[Value], opset: int,
        attributes: dict[str, AttributeProto],
    ) -> None:  # fmt: skip
        self._importer = importer
        self.scope = scope
        self.node = node
        self.opset = opset
        self._values = values
        self._attributes = attributes

    # -- inputs ------------------------------------------------------------------------------

    @property
    def importer(self) -> Importer:
        """The import that this node belongs to."""
        return self._importer

    @property
    def n_inputs(self) -> int:
        """Number of inputs, without omitted ones at the end."""
        return len(self._values)

    @property
    def n_outputs(self) -> int:
        """Number of outputs that the node names."""
        return len(self.node.output)

    def wants(self, index: int) -> bool:
        """Whether the node names an output."""
        return index < len(self.node.output) and self.node.output[index] != ""

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self._values) and self._values[index] is not None

    def value(self, index: int) -> Value:
        """Return an input of any kind, None where it is omitted."""
        return self._values[index] if index < len(self._values) else None

    def x(self, index: int = 0) -> Tensor:
        """Return a tensor input or refuse the node."""
        value = self.value(index)
        if value is None or isinstance(value, list):
            self.fail(f"input {index}", expected="a tensor", got="a sequence" if value else "none",
                      remedy="The file is broken.")  # fmt: skip
        if isinstance(value, Narrow):
            wide: Tensor = widen(self, value)
            return wide
        return value

    def maybe(self, index: int) -> Tensor | None:
        """Return an optional tensor input."""
        return self.x(index) if self.has(index) else None

    def sequence(self, index: int = 0) -> list[Any]:
        """Return a sequence input or refuse the node."""
        value = self.value(index)
        if not isinstance(value, list):
            self.fail(f"input {index}", expected="a sequence", got=type(value).__name__,
                      remedy="Sequences exist while importing only.")  # fmt: skip
        return value

    def tensors(self) -> list[Tensor]:
        """Return all inputs, which must be there."""
        return [self.x(i) for i in range(self.n_inputs)]

    def known(self, index: int, what: str) -> Array:
        """Return an input that must be known while importing.

        Raises
        ------
        NeedsValue
            If it depends on inputs of the model.
        """
        return self.known_value(self.x(index), what)

    def known_value(self, value: Tensor, what: str) -> Array:
        """Return a value that must be known while importing."""
        if isinstance(value, Blob):
            raise NeedsValue(
                message(self.where, f"{what} is not known when compiling",
                        expected="a constant, or inputs whose values are bound",
                        got=f"the result {value.name!r} of a run",
                        remedy="Shapes are static in a plan: they cannot depend on data."),
                self._importer.inputs_behind(value),
            )  # fmt: skip
        return value

    def known_ints(self, index: int, what: str) -> tuple[int, ...]:
        """Return an input as integers."""
        array = self.known(index, what)
        if array.dtype.kind not in "iu" or array.ndim > 1:
            self.fail(what, expected="a vector of integers", got=f"{array.dtype}{array.shape}",
                      remedy="The file is broken.")  # fmt: skip
        return tuple(array.reshape(-1).tolist())

    def number(self, index: int, what: str) -> Any:
        """Return an input that must be known, as one finite number of Python."""
        array = self.known(index, what)
        if array.dtype.kind not in "biuf" or array.size != 1 or not np.isfinite(array).all():
            self.fail(what, expected="one finite number", got=f"{array.dtype}{list(array.shape)}",
                      remedy="The file is broken.")  # fmt: skip
        return array.reshape(-1)[0].item()

    def axes(self, value: Tensor, what: str, low: int, high: int | None = None) -> int:
        """Return the number of axes of a value or refuse the node when it is none of these."""
        rank = len(value.shape)
        if rank < low or rank > (low if high is None else high):
            wanted = str(low) if high is None else f"{low} to {high}"
            self.fail(what, expected=f"{wanted} axes", got=f"shape {list(value.shape)}",
                      remedy="The file is broken.")  # fmt: skip
        return rank

    # -- attributes --------------------------------------------------------------------------

    @property
    def attributes(self) -> dict[str, AttributeProto]:
        """Attributes of the node, references resolved."""
        return self._attributes

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attributes that the node has."""
        return tuple(self._attributes)

    def has_attr(self, name: str) -> bool:
        """Whether the node has an attribute."""
        return name in self._attributes

    def _attr(self, name: str, *kinds: int) -> AttributeProto | None:
        attribute = self._attributes.get(name)
        if attribute is not None and attribute.type not in kinds:
            self.fail(f"attribute {name!r}", expected=" or ".join(_NAMES[k] for k in kinds),
                      got=_NAMES.get(attribute.type, f"type {attribute.type}"),
                      remedy="The file is broken.")  # fmt: skip
        return attribute

    def _required(self, name: str, default: Any) -> Any:
        if default is ...:
            self.fail(f"attribute {name!r}", expected="a value", got="none",
                      remedy="The file is broken.")  # fmt: skip
        return default

    def attr_int(self, name: str, default: Any = ...) -> Any:
        """Return an integer attribute."""
        attribute = self._attr(name, AttributeProto.INT)
        return self._required(name, default) if attribute is None else int(attribute.i)

    def attr_float(self, name: str, default: Any = ...) -> Any:
        """Return a float attribute."""
        attribute = self._attr(name, AttributeProto.FLOAT)
        return self._required(name, default) if attribute is None else float(attribute.f)

    def attr_str(self, name: str, default: Any = ...) -> Any:
        """Return a string attribute."""
        attribute = self._attr(name, AttributeProto.STRING)
        if attribute is None:
            return self._required(name, default)
        return attribute.s.decode("utf-8", "replace")

    def attr_ints(self, name: str, default: Any = ...) -> Any:
        """Return a tuple of integers."""
        attribute = self._attr(name, AttributeProto.INTS)
        return self._required(name, default) if attribute is None else tuple(attribute.ints)

    def attr_floats(self, name: str, default: Any = ...) -> Any:
        """Return a tuple of floats."""
        attribute = self._attr(name, AttributeProto.FLOATS)
        return self._required(name, default) if attribute is None else tuple(attribute.floats)

    def attr_strs(self, name: str, default: Any = ...) -> Any:
        """Return a tuple of strings."""
        attribute = self._attr(name, AttributeProto.STRINGS)
        if attribute is None:
            return self._required(name, default)
        return tuple(s.decode("utf-8", "replace") for s in attribute.strings)

    def attr_tensor(self, name: str) -> Any:
        """Return a tensor attribute as an array, or as a `Narrow` value."""
        attribute = self._attr(name, AttributeProto.TENSOR, AttributeProto.SPARSE_TENSOR)
        if attribute is None:
            self._required(name, ...)
        where = f"{self.where}, attribute {name!r}"
        if attribute.type == AttributeProto.SPARSE_TENSOR:  # type: ignore[union-attr]
            return self._importer.sparse(attribute.sparse_tensor, where)  # type: ignore[union-attr]
        return self._importer.tensor(attribute.t, where)  # type: ignore[union-attr]

    def attr_graph(self, name: str) -> GraphProto:
        """Return a graph attribute."""
        attribute = self._attr(name, AttributeProto.GRAPH)
        if attribute is None:
            self._required(name, ...)
        return attribute.g  # type: ignore[union-attr]

    def plain(self, name: str) -> Any:
        """Return an attribute of any plain type: number, text, tuple of them, or array."""
        kind = self._attributes[name].type
        read = {
            AttributeProto.INT: self.attr_int, AttributeProto.INTS: self.attr_ints,
            AttributeProto.FLOAT: self.attr_float, AttributeProto.FLOATS: self.attr_floats,
            AttributeProto.STRING: self.attr_str, AttributeProto.STRINGS: self.attr_strs,
            AttributeProto.TENSOR: self.attr_tensor, AttributeProto.SPARSE_TENSOR: self.attr_tensor,
        }.get(kind)  # fmt: skip
        if read is None:
            self.fail(f"attribute {name!r}", expected="plain data", got=f"type {kind}",
                      remedy="The file is broken.")  # fmt: skip
        return read(name)

    # -- results -----------------------------------------------------------------------------

    def emit(self, op: str, *values: Any, **attrs: Any) -> Any:
        """Apply one of our operators; returns its value, a tuple where it has several.

        Known arrays give known arrays; otherwise a node is added to the net.
        """
        outs = self._importer.emit(self, op, values, attrs, ())
        return outs[0] if len(outs) == 1 else outs

    def result(self, op: str, *values: Any, **attrs: Any) -> tuple[Tensor, ...]:
        """Apply one of our operators whose outputs are those of the node, under their names."""
        return self._importer.emit(self, op, values, attrs, tuple(self.node.output))

    @property
    def where(self) -> str:
        """Beginning of every message on this node."""
        return describe(self.node)

    def fail(self, what: str, *, expected: object, got: object, remedy: str) -> NoReturn:
        """Refuse the node."""
        raise OnnxImportError(message(self.where, what, expected=expected, got=got, remedy=remedy))

    def unsupported(self, what: str, remedy: str = "Convert the model.") -> NoReturn:
        """Refuse a node for something that is right but not supported."""
        self.fail(what, expected="what is supported", got=what, remedy=remedy)


def describe(node: NodeProto) -> str:
    """Name a node for messages, whether the file gives it a name or not."""
    name = node.name or (node.output[0] if node.output else "")
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"onnx node {name[:200]!r} ({kind[:200]})"


def as_blobs(values: Sequence[Value]) -> list[Tensor]:
    """Return the tensors among values, dropping omitted ones."""
    return [v for v in values if isinstance(v, (Blob, np.ndarray))]
