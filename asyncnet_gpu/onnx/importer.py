"""A model becomes a net, node by node.

`Importer.graph` walks a graph in its order. Each node finds its mapping (`mapping`), sees its
inputs through a `NodeContext` and gives values; what is known is computed at once (`fold`), the
rest becomes nodes of the net. A node without a mapping whose definition in ONNX is a function of
simpler nodes is replaced by those (`functions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    defs,
)

from asyncnet_gpu import ops
from asyncnet_gpu.blob import Blob
from asyncnet_gpu.errors import OnnxImportError, message
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx import mapping
from asyncnet_gpu.onnx.context import NeedsValue, NodeContext, Tensor, Value, describe
from asyncnet_gpu.onnx.external import ExternalData
from asyncnet_gpu.onnx.fold import evaluate
from asyncnet_gpu.onnx.functions import body_of
from asyncnet_gpu.onnx.limits import Budget
from asyncnet_gpu.onnx.narrow import AWARE, NARROW, Narrow, restore
from asyncnet_gpu.onnx.reader import opsets_of, plain_domain
from asyncnet_gpu.onnx.tensors import (
    read_codes,
    read_sparse,
    read_tensor,
    read_texts,
)
from asyncnet_gpu.ops.base import Op

Array = np.ndarray[Any, Any]


@final
class Scope:
    """Names that a graph sees: its own values and initializers, then those around it."""

    def __init__(
        self, parent: Scope | None, opsets: Mapping[str, int], depth: int,
        attributes: Mapping[str, AttributeProto] | None = None,
    ) -> None:  # fmt: skip
        self.parent = parent
        self.opsets = opsets
        self.depth = depth
        #: Attributes of the call, in the body of a function.
        self.attributes = attributes
        self.values: dict[str, Value] = {}
        self.unread: dict[str, TensorProto | SparseTensorProto] = {}

    def find(self, name: str, importer: Importer) -> Value:
        """Return a value by name, reading an initializer when it is first asked for."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return importer.adopt(scope.values[name], name)
            tensor = scope.unread.pop(name, None)
            if tensor is not None:
                where = f"onnx initializer {name[:200]!r}"
                if isinstance(tensor, TensorProto):
                    scope.values[name] = importer.tensor(tensor, where)
                else:
                    scope.values[name] = importer.sparse(tensor, where)
                importer.name_constant(scope.values[name], name)
                return scope.values[name]
            scope = scope.parent
        raise OnnxImportError(
            message("onnx", f"value {name[:200]!r} is used", expected="made by an earlier node",
                    got="nothing of this name", remedy="The file is broken or not sorted.")
        )  # fmt: skip


@final
class Importer:
    """State of one import into one net.

    Parameters
    ----------
    net
        Where nodes are added.
    budget
        Shared with the imports of nested nets.
    external
        Reader of external data.
    functions
        The model's own functions by domain and name.
    outer
        For a nested net: gives the input of `net` that stands for a blob of another net.
    """

    def __init__(
        self, net: AsyncNet, budget: Budget, external: ExternalData,
        functions: Mapping[tuple[str, str], Any], outer: Callable[[Blob], Blob] | None = None,
    ) -> None:  # fmt: skip
        self.net = net
        self.budget = budget
        self.external = external
        self.functions = functions
        self._outer = outer
        self._blob_names: set[str] = set()
        self._node_names: set[str] = set()
        self._counts: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._constants: dict[int, tuple[Array, Blob]] = {}
        self._constant_names: dict[int, tuple[Array, str]] = {}
        self._makers: dict[str, tuple[str, ...]] = {}

    # -- names and constants ---------------------------------------------------------------------

    def unique(self, name: str, taken: set[str]) -> str:
        """Return `name`, or with a number behind it where it is taken, and take it."""
        found = name
        while found in taken:
            count = self._counts[name] = self._counts.get(name, 1) + 1
            found = f"{name}#{count}"
        taken.add(found)
        return found

    def input(self, name: str, shape: Sequence[int], dtype: object) -> Blob:
        """Declare an input of the net."""
        self._blob_names.add(name)
        return self.net.input(name, shape, dtype)

    def tensor(self, tensor: TensorProto, where: str) -> Array | Narrow:
        """Read a tensor of the file."""
        if tensor.data_type in NARROW:
            return Narrow(read_codes(tensor, self.budget, self.external, where), tensor.data_type)
        if tensor.data_type == TensorProto.STRING:
            return read_texts(tensor, self.budget, where)
        return read_tensor(tensor, self.budget, self.external, where)

    def sparse(self, tensor: SparseTensorProto, where: str) -> Array:
        """Read a sparse tensor of the file."""
        return read_sparse(tensor, self.budget, self.external, where)

    def name_constant(self, value: Value, name: str) -> None:
        """Give an array the name that it has when it becomes a constant of the net."""
        if isinstance(value, Narrow):
            value = value.codes
        if isinstance(value, np.ndarray):
            # The array is kept with its id: an id alone may belong to another array later.
            self._constant_names.setdefault(id(value), (value, name))

    def adopt(self, value: Value, name: str) -> Value:
        """Return a value of a graph around a nested net as one of this net."""
        if isinstance(value, Blob) and value.net is not self.net:
            assert self._outer is not None
            return self._outer(value)
        if isinstance(value, list):
            return [self.adopt(v, name) for v in value]
        if isinstance(value, Narrow):
            codes: Any = self.adopt(value.codes, name)
            return Narrow(codes, value.element_type)
        return value

    def blob(self, value: Tensor) -> Blob:
        """Return a value as a blob; an array becomes a constant, once."""
        if isinstance(value, Blob):
            return value
        array = np.asarray(value)
        made = self._constants.get(id(array))
        if made is None:
            wanted = self._constant_names.get(id(array), (array, "constant"))[1]
            name = self.unique(wanted, self._blob_names)
            made = (array, self.net.constant(array, name=name))
            self._constants[id(array)] = made
        return made[1]

    def count(self, what: str) -> int:
        """Count things of a kind, from 0."""
        self._totals[what] = self._totals.get(what, -1) + 1
        return self._totals[what]

    def counter(self, context: NodeContext) -> Blob:
        """Declare a counter for a node that draws random numbers anew in every run."""
        if self._outer is not None:
            context.unsupported("random numbers inside a loop or branch that a run decides")
        name = self.unique(f"{context.node.output[0]}/counter", self._blob_names)
        return self.net.parameter(name, np.zeros((), np.uint64))

    def inputs_behind(self, blob: Blob) -> frozenset[str]:
        """Return the inputs of the net on which a blob depends."""
        found: set[str] = set()
        todo, seen = [blob.name], {blob.name}
        while todo:
            name = todo.pop()
            makers = self._makers.get(name)
            if makers is None:
                found.add(name)
            for other in makers or ():
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        inputs = {s.name for s in self.net.sources if s.kind == "input"}
        return frozenset(found & inputs)

    # -- nodes of the net --------------------------------------------------------------------------

    def emit(
        self, context: NodeContext, op_name: str, values: Sequence[Any], attrs: Mapping[str, Any],
        names: tuple[str, ...],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Apply an operator to values: at once when all are known, as a node otherwise.

        `names` are those of the ONNX node's outputs, () for a step on the way to them.
        """
        op = ops.registry().get(op_name)
        if op is None:
            context.unsupported(f"operator {op_name!r}", "There is no such operator yet.")
        where = context.where
        if op.view is None and any(isinstance(v, np.ndarray) and v.dtype == object for v in values):
            context.unsupported(f"strings as input of {op_name!r}")
        if not any(isinstance(v, Blob) for v in values):
            known = evaluate(op, [np.asarray(v) for v in values], attrs, self.budget, where)
            if known is not None:
                return known
        self.budget.node(where)
        blobs = [self.blob(v) for v in values]
        node = context.node
        stem = node.name or next(filter(None, node.output), op_name)
        name = self.unique(stem if names else f"{stem}/{op_name}", self._node_names)
        count = self._count_outputs(op, blobs, attrs)
        wanted = [n if n else f"{name}.{i}" for i, n in enumerate(names[:count])]
        wanted += [(name if count == 1 else f"{name}.{i}") for i in range(len(wanted), count)]
        outputs = [self.unique(n, self._blob_names) for n in wanted]
        made = self.net.add_node(op, blobs, attrs, name=name, outputs=outputs)
        reads = tuple([b.name for b in blobs])
        for blob in made:
            self._makers[blob.name] = reads
            self.budget.tensor(blob.shape, blob.dtype.itemsize, where)
        self._check_scratch(op, made, blobs, attrs, where)
        return made

    def _check_scratch(
        self, op: Op, made: Sequence[Blob], blobs: Sequence[Blob], attrs: Mapping[str, Any],
        where: str,
    ) -> None:  # fmt: skip
        """Hold temporaries against the limits: a padded input may be larger than the result."""
        ins, outs = tuple([b.spec for b in blobs]), tuple([b.spec for b in made])
        for s in op.scratch(ins, outs, {**op.attrs, **attrs}, "cpu"):
            self.budget.tensor(s.shape, s.dtype.itemsize, where)

    def _count_outputs(self, op: Op, blobs: Sequence[Blob], attrs: Any) -> int:
        specs = tuple([b.spec for b in blobs])
        op.check_inputs(specs)
        return len(op.infer(specs, {**op.attrs, **attrs}))

    # -- the walk ----------------------------------------------------------------------------------

    def graph(
        self, graph: GraphProto, inputs: Mapping[str, Value], scope: Scope,
    ) -> list[Value]:  # fmt: skip
        """Import the nodes of a graph on which its outputs depend; return the outputs.

        Parameters
        ----------
        inputs
            Value of each input by name.
        scope
            Fresh, for the names of this graph.
        """
        self.budget.depth(scope.depth, f"onnx graph {graph.name[:200]!r}")
        for tensor in graph.initializer:
            scope.unread[tensor.name] = tensor
        for sparse in graph.sparse_initializer:
            scope.unread[sparse.values.name] = sparse
        scope.values.update(inputs)
        outputs = [o.name for o in graph.output]
        self.nodes(graph.node, outputs, scope)
        return [scope.find(name, self) for name in outputs]

    def nodes(self, nodes: Sequence[NodeProto], outputs: Iterable[str], scope: Scope) -> None:
        """Import those of some nodes on which `outputs` depend."""
        marks = _needed(nodes, outputs)
        for i, node in enumerate(nodes):
            if not marks[i]:
                continue
            try:
                self.node(node, scope)
            except NeedsValue as needed:
                if scope.depth == 0:
                    needed.position = i
                raise

    def node(self, node: NodeProto, scope: Scope) -> None:
        """Import a node.

        Raises
        ------
        OnnxImportError
            Naming the node, whatever is wrong with it.
        """
        self.budget.node(describe(node))
        try:
            made = self._translate(node, scope)
        except OnnxImportError:
            raise
        except Exception as error:
            # The node comes from an untrusted file: whatever an operator stumbles over while its
            # shapes are worked out or its constants are folded is the file's fault.
            raise self._refused(node, scope, error) from error
        for name, value in zip(node.output, made, strict=False):
            if name:
                scope.values[name] = value
        for name in node.output[len(made) :]:
            if name:
                raise OnnxImportError(
                    message(describe(node), f"output {name[:200]!r}",
                            expected=f"at most {len(made)} outputs", got=len(node.output),
                            remedy="The file is broken.")
                )  # fmt: skip

    def _refused(self, node: NodeProto, scope: Scope, error: Exception) -> OnnxImportError:
        known = []
        for name in list(node.input)[:8]:
            value = next((s.values[name] for s in _chain(scope) if name in s.values), None)
            if isinstance(value, (Blob, np.ndarray)):
                known.append(f"{value.dtype}{list(value.shape)}")
        text = str(error)[:2000] or type(error).__name__
        attributes = ", ".join(a.name[:80] for a in list(node.attribute)[:16])
        return OnnxImportError(
            f"[{describe(node)}] refused: {text} (inputs: {', '.join(known) or 'none'}; "
            f"attributes: {attributes or 'none'})"
        )

    def _translate(self, node: NodeProto, scope: Scope) -> Sequence[Value]:
        domain = plain_domain(node.domain)
        function = self.functions.get((domain, node.op_type))
        values = [scope.find(n, self) if n else None for n in node.input]
        while values and values[-1] is None:
            values.pop()
        opset = scope.opsets.get(domain, 1 if not scope.opsets else 0)
        context = NodeContext(self, scope, node, values, opset, _attributes(node, scope))
        if function is not None:
            return self._call(context, function, opsets_of(function.opset_import))
        if opset < 1:
            context.fail(f"domain {domain[:200]!r}", expected="imported by the model", got="not",
                         remedy="The file is broken.")  # fmt: skip
        _check_arity(context)
        entry = mapping.find(domain, node.op_type, opset)
        if entry is None:
            body = body_of(context)
            return self._call(context, body, {**scope.opsets, **opsets_of(body.opset_import)})
        build = entry.mapping.build
        if build is not None:
            made = build(context, node)
            # A tuple holds the outputs; a list is a sequence, which is one output.
            outputs: Sequence[Value] = made if isinstance(made, tuple) else (made,)
        else:
            outputs = _default(context, entry.op)
        if node.op_type not in AWARE and any(isinstance(v, Narrow) for v in values):
            return restore(context, values, outputs)
        return outputs

    def _call(
        self, context: NodeContext, function: Any, opsets: Mapping[str, int]
    ) -> Sequence[Value]:
        """Import the body of a function in place of a node."""
        attributes = {a.name: a for a in function.attribute_proto}
        attributes.update(context.attributes)
        scope = Scope(None, opsets, context.scope.depth + 1, attributes)
        self.budget.depth(scope.depth, context.where)
        for i, name in enumerate(function.input):
            scope.values[name] = context.value(i)
        self.nodes(function.node, function.output, scope)
        outputs = list(function.output)[: len(context.node.output)]
        return [scope.find(n, self) if w else None
                for n, w in zip(outputs, context.node.output, strict=False)]  # fmt: skip


def _chain(scope: Scope) -> Iterable[Scope]:
    inner: Scope | None = scope
    while inner is not None:
        yield inner
        inner = inner.parent


def _default(context: NodeContext, op: str) -> Sequence[Value]:
    """Translate a node that is one of our operators: inputs and attributes go over as they are."""
    known = ops.registry()[op].attrs
    schema = _schema(context)
    for name, attribute in context.attributes.items():
        if name not in known:
            context.fail(f"attribute {name[:200]!r}", expected=", ".join(known) or "none",
                         got=name[:200], remedy="The file is broken, or too new.")  # fmt: skip
        declared = schema.attributes.get(name) if schema is not None else None
        if declared is not None and int(declared.type.value) != attribute.type:
            context.fail(f"attribute {name!r}", expected=declared.type.name,
                         got=f"type {attribute.type}", remedy="The file is broken.")  # fmt: skip
    attrs = {name: context.plain(name) for name in context.attribute_names}
    return context.result(op, *context.tensors(), **attrs)


def _check_arity(context: NodeContext) -> None:
    """Refuse a node whose inputs are too many, too few, or omitted where they must not be."""
    schema = _schema(context)
    if schema is None:
        return
    names = list(context.node.input)
    while names and not names[-1]:
        names.pop()
    if not schema.min_input <= len(names) <= schema.max_input:
        context.fail("number of inputs", expected=f"{schema.min_input} to {schema.max_input}",
                     got=len(names), remedy="The file is broken.")  # fmt: skip
    for i, (name, formal) in enumerate(zip(names, schema.inputs, strict=False)):
        if not name and formal.option == defs.OpSchema.FormalParameterOption.Single:
            context.fail(f"input {i} ({formal.name!r})", expected="a value", got="none",
                         remedy="The file is broken.")  # fmt: skip


def _schema(context: NodeContext) -> Any:
    """Return ONNX's definition of a node, None where it has none."""
    try:
        return defs.get_schema(context.node.op_type, context.opset, context.node.domain)
    except defs.SchemaError:
        return None


def _attributes(node: NodeProto, scope: Scope) -> dict[str, AttributeProto]:
    """Return the attributes of a node by name; references take those of the function's call."""
    found: dict[str, AttributeProto] = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            given = (scope.attributes or {}).get(attribute.ref_attr_name)
            if given is not None:
                found[attribute.name] = given
        else:
            found[attribute.name] = attribute
    return found


def _needed(nodes: Sequence[NodeProto], outputs: Iterable[str]) -> list[bool]:
    """Mark the nodes on which `outputs` depend."""
    wanted = set(outputs)
    marks = []
    for node in reversed(nodes):
        needed = any(name in wanted for name in node.output)
        marks.append(needed)
        if needed:
            wanted.update(names_read(node))
    return marks[::-1]


def names_read(node: NodeProto) -> Iterable[str]:
    """Names that a node or anything inside it reads."""
    yield from node.input
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
        for graph in graphs:
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from names_read(inner)
