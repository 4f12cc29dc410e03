"""Nets as ONNX models: every operator that ONNX has words for, under the names of the net.

A blob becomes a value, a parameter or constant an initializer, a view the node that it was written
as. Barriers, control edges and devices are left out: ONNX orders by data alone, and the numbers are
the same without them. Where our operator is an ONNX node as it stands the mapping that imports it
says so; the others are written by `asyncnet_gpu.onnx.writers`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, checker, defs, helper, numpy_helper

from asyncnet_gpu.errors import InternalError, NetError, UnsupportedOpError, message
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.net_state import NodeDef
from asyncnet_gpu.onnx.tensors import ELEMENT_TYPES
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.ops.base import Op
from asyncnet_gpu.specs import TensorSpec

Array = np.ndarray[Any, Any]

#: Operator set that is written unless a node needs a newer one; readers of 2024 know it.
BASE_OPSET = 20
#: Initializers beyond this go into a file beside the model: protobuf ends at 2 GiB.
EXTERNAL_BYTES = 1 << 30


@cache
def writers() -> dict[str, Callable[[Writer], None]]:
    """Return the writers of all files, by the name of our operator."""
    from asyncnet_gpu.onnx import writers as package

    found: dict[str, Callable[[Writer], None]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        found.update(importlib.import_module(f"{package.__name__}.{info.name}").WRITERS)
    return found


def plain_name(op: Op) -> str | None:
    """Return the ONNX node that an operator is as it stands, None when there is none."""
    for name, mapping in op.onnx.items():
        if mapping.build is None and mapping.until is None and "::" not in name:
            return name
    return None


@final
class Writer:
    """What a writer sees of the node that it writes.

    Attributes
    ----------
    definition
        The node of the net.
    attrs
        Its attributes, complete.
    inputs, outputs
        Names of its values in the model.
    ins, outs
        Their specs.
    """

    __slots__ = ("_model", "attrs", "definition", "inputs", "ins", "outputs", "outs")

    def __init__(self, model: _Model, definition: NodeDef, outside: Writer | None = None) -> None:
        self._model = model
        self.definition = definition
        self.attrs = definition.attrs
        around = model if outside is None else outside._model
        self.inputs: list[str] = [around.names[name] for name in definition.inputs]
        self.outputs: list[str] = [around.names[name] for name in definition.outputs]
        self.ins: list[TensorSpec] = [around.net.spec_of(name) for name in definition.inputs]
        self.outs: list[TensorSpec] = [around.net.spec_of(name) for name in definition.outputs]

    def node(
        self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: Any
    ) -> None:
        """Add a node; the one that makes the outputs has the name of the net's node."""
        last = list(outputs) == self.outputs and not self._model.prefix
        name = self.definition.name if last else self._model.unique_node(self.definition.name)
        node = helper.make_node(op_type, list(inputs), list(outputs), name=name)
        kinds = defs.get_schema(op_type).attributes
        for key, value in attrs.items():
            node.attribute.append(_attribute(key, value, int(kinds[key].type.value)))
        self._model.nodes.append(node)
        self._model.written.append((node, self))

    def step(self, op_type: str, inputs: Sequence[str], dtype: object, **attrs: Any) -> str:
        """Add a node on the way to the outputs; return the name of its value."""
        name = self._model.unique_value(f"{self.definition.name}/{op_type}")
        self._model.dtypes[name] = np.dtype(dtype)  # type: ignore[call-overload]
        self.node(op_type, inputs, [name], **attrs)
        return name

    def constant(self, array: Array, what: str) -> str:
        """Add an initializer; return its name."""
        name = self._model.unique_value(f"{self.definition.name}/{what}")
        self._model.dtypes[name] = array.dtype
        self._model.initializers.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, values: Iterable[int], what: str) -> str:
        """Add an initializer of integers."""
        return self.constant(np.asarray(list(values), np.int64), what)

    def value(self, what: str, dtype: object) -> str:
        """Return a new name for a value."""
        name = self._model.unique_value(f"{self.definition.name}/{what}")
        self._model.dtypes[name] = np.dtype(dtype)  # type: ignore[call-overload]
        return name

    def inside(self, what: str) -> Writer:
        """Return a writer for a graph inside this node; its nodes are added to `graph`."""
        inner = _Model(AsyncNet(what), self._model, f"{self.definition.name}/{what}/")
        return Writer(inner, self.definition, outside=self)

    def body(self, net: AsyncNet, given: Mapping[str, str], keys: Sequence[str]) -> list[str]:
        """Write a nested net into this graph; return the names of its outputs.

        Parameters
        ----------
        given
            Name of the value for each input of `net`.
        keys
            Of its outputs.
        """
        model = self._model
        model.net = net
        model.name_blobs(given)
        definitions = _needed(net)
        for definition in definitions:
            _write(model, definition)
        model.add_values(definitions)
        made = []
        for key in keys:  # results of a graph have names of their own, each once
            blob = net.outputs[key]
            made.append(self.value(key, net.spec_of(blob).dtype))
            self.node("Identity", [model.names[blob]], [made[-1]])
        return made

    def graph(
        self, name: str, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
    ) -> onnx.GraphProto:
        """Return what has been written into this graph."""
        return helper.make_graph(
            self._model.nodes, name, [_info(*item) for item in inputs.items()],
            [_info(*item) for item in outputs.items()], self._model.initializers,
        )  # fmt: skip

    def element_type(self, dtype: object) -> int:
        """Return ONNX's number of a dtype."""
        return ELEMENT_TYPES[np.dtype(dtype)]  # type: ignore[call-overload]

    def needs(self, opset: int) -> None:
        """Write the model in this operator set at least."""
        self._model.root.opset = max(self._model.root.opset, opset)

    def fail(self, what: str, remedy: str) -> NoReturn:
        """Refuse the node."""
        raise UnsupportedOpError(
            message(f"to_onnx, node {self.definition.name!r} ({self.definition.op.name})", what,
                    expected="what ONNX has an operator for", got=what,
                    remedy=f"{remedy} The node was added at {self.definition.line}.")
        )  # fmt: skip


def _attribute(name: str, value: Any, kind: int) -> onnx.AttributeProto:
    """Return an attribute of the type that the operator's schema wants."""
    plain: dict[int, Callable[[Any], Any]] = {
        onnx.AttributeProto.INT: int, onnx.AttributeProto.FLOAT: float,
        onnx.AttributeProto.INTS: lambda v: [int(i) for i in v],
        onnx.AttributeProto.FLOATS: lambda v: [float(f) for f in v],
    }  # fmt: skip
    return helper.make_attribute(name, plain.get(kind, lambda v: v)(value), attr_type=kind)


class _Model:
    """State of one export, or of one graph inside it, which shares names with those around."""

    def __init__(self, net: AsyncNet, outer: _Model | None = None, prefix: str = "") -> None:
        self.net = net
        self.prefix = prefix
        self.root: _Model = self if outer is None else outer.root
        self.opset = BASE_OPSET
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.names: dict[str, str] = {}
        #: Of the whole model: every node with its writer, the dtype of every value, names taken.
        self.written: list[tuple[NodeProto, Writer]] = [] if outer is None else outer.written
        self.dtypes: dict[str, np.dtype[Any]] = {} if outer is None else outer.dtypes
        self._values: set[str] = set() if outer is None else outer._values
        names = {d.name for d in net.definitions}
        self._node_names: set[str] = names if outer is None else outer._node_names

    def name_outermost(self) -> None:
        """Give each blob its name, but where an output of another value has it."""
        fixed = {s.name for s in self.net.sources if s.kind == "input"}
        for key, blob in self.net.outputs.items():
            if key != blob and key in fixed:
                raise NetError(
                    message("to_onnx", f"output {key!r}", expected="a name that no input has",
                            got=f"an input {key!r} beside it", remedy="Rename the output.")
                )  # fmt: skip
        self._values.update(self.net.outputs, fixed)
        kept = {key: key for key, blob in self.net.outputs.items() if key == blob}
        self.name_blobs({**{name: name for name in fixed}, **kept})

    def name_blobs(self, given: Mapping[str, str]) -> None:
        """Name the value of each blob; some have their names already."""
        made = [name for d in self.net.definitions for name in d.outputs]
        for name in [*[s.name for s in self.net.sources], *made]:
            if name not in self.names:
                self.names[name] = given.get(name) or self.unique_value(name)
                self.dtypes[self.names[name]] = self.net.spec_of(name).dtype

    def add_values(self, definitions: Sequence[NodeDef]) -> None:
        """Add an initializer for each parameter or constant that is read or given."""
        read = {n for d in definitions for n in d.inputs} | set(self.net.outputs.values())
        for source in self.net.sources:
            if source.value is not None and source.name in read:
                name = self.names[source.name]
                self.initializers.append(numpy_helper.from_array(source.value, name))

    def unique_value(self, name: str) -> str:
        """Return a name that no value has, and take it."""
        return _unique(f"{self.prefix}{name}", self._values)

    def unique_node(self, name: str) -> str:
        """Return a name that no node has, and take it."""
        return _unique(f"{self.prefix}{name}" if self.prefix else f"{name}/1", self._node_names)


def _unique(name: str, taken: set[str]) -> str:
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}#{count}"
    taken.add(found)
    return found


def _needed(net: AsyncNet) -> list[NodeDef]:
    """Return the nodes on which outputs depend, and those with an effect, which cannot be lost."""
    wanted = set(net.outputs.values())
    found = []
    for definition in reversed(net.definitions):
        op = definition.op
        if op.name in BARRIERS:
            continue
        if op.effect or op.mutates or wanted.intersection(definition.outputs):
            found.append(definition)
            wanted.update(definition.inputs)
    return found[::-1]


def _write(model: _Model, definition: NodeDef) -> None:
    writer = Writer(model, definition)
    op = definition.op
    special = writers().get(op.name)
    if special is not None:
        special(writer)
        return
    name = plain_name(op)
    if name is None:
        what = "updates a parameter in place" if op.mutates else "has no counterpart in ONNX"
        writer.fail(f"the operator {what}", "Leave it out, or compute it from other operators.")
    given = {key: value for key, value in definition.attrs.items() if value is not None}
    writer.node(name, writer.inputs, writer.outputs, **given)


def export_model(net: AsyncNet) -> ModelProto:
    """Return a net as an ONNX model.

    Raises
    ------
    UnsupportedOpError
        If ONNX has no operator for a node; the message names the first one.
    NetError
        If the net has no outputs, or an output bears the name of an input.
    """
    net.check_complete()
    model = _Model(net)
    model.name_outermost()
    definitions = _needed(net)
    for definition in definitions:
        _write(model, definition)
    model.opset = max([model.opset, *[_first_version(node.op_type) for node, _ in model.written]])
    for node, writer in model.written:
        _check_types(node, writer, model)
    return _assemble(model, definitions)


def _first_version(op_type: str) -> int:
    return min(int(s.since_version) for s in _versions()[op_type])


@cache
def _versions() -> Mapping[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            found.setdefault(schema.name, []).append(schema)
    return found


def _check_types(node: NodeProto, writer: Writer, model: _Model) -> None:
    """Refuse a dtype that the operator does not take: ONNX's checker would let it pass."""
    schema = defs.get_schema(node.op_type, model.opset)
    for i, name in enumerate(node.input):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        dtype = model.dtypes.get(name)
        if dtype is None:
            continue
        kind = helper.tensor_dtype_to_string(ELEMENT_TYPES[dtype]).removeprefix("TensorProto.")
        if f"tensor({kind.lower()})" not in formal.types:
            writer.fail(f"{dtype.name} as input {i} of {node.op_type}",
                        f"Cast it; ONNX takes {', '.join(sorted(formal.types))}.")  # fmt: skip


def _assemble(model: _Model, definitions: Sequence[NodeDef]) -> ModelProto:
    net = model.net
    nodes = list(model.nodes)
    for key, blob in net.outputs.items():
        if model.names[blob] != key:
            name = model.unique_node(key)
            nodes.append(helper.make_node("Identity", [model.names[blob]], [key], name=name))
    model.add_values(definitions)
    graph = helper.make_graph(
        nodes, net.name or "net",
        [_info(s.name, s.spec) for s in net.sources if s.kind == "input"],
        [_info(key, net.spec_of(blob)) for key, blob in net.outputs.items()],
        model.initializers,
        value_info=[
            _info(model.names[name], net.spec_of(name))
            for definition in definitions
            for name in definition.outputs
            if model.names[name] not in net.outputs
        ],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", model.opset)]
    return helper.make_model(
        graph, opset_imports=opsets, producer_name="asyncnet_gpu",
        ir_version=helper.find_min_ir_version_for(opsets),
    )  # fmt: skip


def _info(name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[spec.dtype], spec.shape)


def save_onnx(
    net: AsyncNet, path: str | os.PathLike[str], *, external_bytes: int = EXTERNAL_BYTES
) -> None:
    """Write a net to an ONNX file, checked in full.

    Parameters
    ----------
    path
        Of the file; its folder exists.
    external_bytes
        When all initializers together are larger, they go into ``<path>.data`` beside it.

    Raises
    ------
    UnsupportedOpError, NetError
        As `export_model`; nothing is written.
    """
    model = export_model(net)
    target = Path(path)
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > external_bytes:
        data = f"{target.name}.data"
        target.with_name(data).unlink(missing_ok=True)  # onnx would append to it
        # Small ones stay: ONNX's own shape inference reads extents only from the model itself.
        onnx.save_model(model, target, save_as_external_data=True, location=data)
        _check(str(target))
    else:
        _check(model)
        target.write_bytes(model.SerializeToString())


def _check(model: ModelProto | str) -> None:
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(
            message("to_onnx", "the model does not pass ONNX's checker", expected="a valid model",
                    got=" ".join(str(error).split())[:500],
                    remedy="Please report the net; the writer of that node is wrong.")
        ) from error  # fmt: skip
