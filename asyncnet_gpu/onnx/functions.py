"""Operators that ONNX defines as functions of simpler ones: the body in place of the node.

A definition gives such a body as data, or makes it for the types at hand. So an operator that has
no translation of its own still works, if all that its body is made of does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import FunctionProto, TypeProto, defs

from asyncnet_gpu.blob import Blob
from asyncnet_gpu.onnx.context import NodeContext, Value
from asyncnet_gpu.onnx.narrow import Narrow
from asyncnet_gpu.onnx.tensors import ELEMENT_TYPES


def body_of(context: NodeContext) -> FunctionProto:
    """Return the function that defines a node, or refuse the node as not supported."""
    node = context.node
    try:
        schema = defs.get_schema(node.op_type, context.opset, node.domain)
    except defs.SchemaError:
        context.unsupported(
            f"operator {node.op_type[:200]!r} of domain {node.domain[:200] or 'ai.onnx'!r}",
            f"It is not part of operator set {context.opset}; convert the model.",
        )
    if schema.has_context_dependent_function:
        return _made_body(context, schema)
    if schema.has_function:
        body: FunctionProto = schema.function_body
        return _with_defaults(body, schema)
    return context.unsupported(f"operator {node.op_type!r}", "There is no such operator yet.")


def _with_defaults(body: FunctionProto, schema: Any) -> FunctionProto:
    """Add the defaults of the schema: the body refers to attributes that a node may leave out."""
    function = FunctionProto()
    function.CopyFrom(body)
    function.attribute_proto.extend(
        a.default_value for a in schema.attributes.values() if a.default_value.name
    )
    return function


def _made_body(context: NodeContext, schema: Any) -> FunctionProto:
    node = onnx.NodeProto()
    node.CopyFrom(context.node)
    del node.attribute[:]
    for name, attribute in context.attributes.items():
        copy = node.attribute.add()
        copy.CopyFrom(attribute)
        copy.name = name
    onnx.checker.check_node(node, _checker_context(context))
    types = [_type_of(context.value(i)).SerializeToString() for i in range(context.n_inputs)]
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= context.opset]
    made = (
        schema.get_context_dependent_function_with_opset_version(
            max(versions), node.SerializeToString(), types
        )
        if versions
        else schema.get_context_dependent_function(node.SerializeToString(), types)
    )
    function = FunctionProto()
    function.ParseFromString(made)
    if not function.node:
        context.unsupported(f"these attributes of {context.node.op_type!r}")
    return _with_defaults(function, schema)


def _checker_context(context: NodeContext) -> Any:
    checker = onnx.checker.C.CheckerContext()
    checker.ir_version = onnx.IR_VERSION
    checker.opset_imports = dict(context.scope.opsets)
    return checker


def _type_of(value: Value) -> TypeProto:
    """Describe a value for the builders of bodies."""
    if isinstance(value, (Blob, np.ndarray)):
        element = ELEMENT_TYPES[np.dtype(value.dtype)]
        return onnx.helper.make_tensor_type_proto(element, value.shape)
    if isinstance(value, Narrow):
        return onnx.helper.make_tensor_type_proto(value.element_type, value.shape)
    return TypeProto()
