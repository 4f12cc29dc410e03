"""Model files made up from ONNX's own schemas: right in form, odd in every number.

Each node is some operator of some operator set with a random choice of its attributes, inputs that
exist or dangle, and outputs that may be taken. `random.Random` is all that is asked for, so that
Hypothesis can drive it and shrink what fails.
"""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
from helpers.onnx_mutate import ODD, ODD_FLOATS
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, defs, helper

_SMALL = (0, 1, 1, 1, 2, 2, 3, 4, -1, -2)
_TYPES = (
    TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32,
    TensorProto.BOOL, TensorProto.UINT8, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT8,
)  # fmt: skip
_WORDS = (
    "linear", "nearest", "cubic", "constant", "reflect", "edge", "wrap", "SAME_UPPER", "SAME_LOWER",
    "VALID", "NOTSET", "forward", "reverse", "bidirectional", "Relu", "Tanh", "Sigmoid", "none",
    "add", "mul", "max", "DCR", "CRD", "floor", "half_pixel", "asymmetric", "align_corners", "mean",
    "sum", "border", "zeros", "bilinear", "tanh", "LEFT", "ij,jk->ik", "...i->...", "ii", "i,,", "",
)  # fmt: skip
_SHAPES = ((), (1,), (2,), (3,), (2, 3), (1, 2, 4), (2, 1, 3, 3), (1, 2, 5, 5), (0,), (2, 0))
_KINDS = {
    defs.OpSchema.AttrType.INT: AttributeProto.INT,
    defs.OpSchema.AttrType.INTS: AttributeProto.INTS,
    defs.OpSchema.AttrType.FLOAT: AttributeProto.FLOAT,
    defs.OpSchema.AttrType.FLOATS: AttributeProto.FLOATS,
    defs.OpSchema.AttrType.STRING: AttributeProto.STRING,
    defs.OpSchema.AttrType.STRINGS: AttributeProto.STRINGS,
    defs.OpSchema.AttrType.TENSOR: AttributeProto.TENSOR,
    defs.OpSchema.AttrType.GRAPH: AttributeProto.GRAPH,
}


@functools.cache
def operators() -> tuple[str, ...]:
    """Names of the operators of the default domain."""
    return tuple(sorted({s.name for s in defs.get_all_schemas() if s.domain == ""}))


def _int(rng: random.Random) -> int:
    return rng.choice(ODD) if rng.random() < 0.1 else rng.choice(_SMALL)


def _float(rng: random.Random) -> float:
    return rng.choice(ODD_FLOATS) if rng.random() < 0.3 else rng.random() * 4 - 2


def tensor(rng: random.Random, name: str) -> TensorProto:
    """Return a small tensor, sometimes one that lies about its shape or type."""
    made = TensorProto(name=name, data_type=rng.choice(_TYPES))
    shape = rng.choice(_SHAPES)
    made.dims.extend(shape)
    count = int(np.prod(shape))
    if rng.random() < 0.05 and shape:
        made.dims[rng.randrange(len(shape))] = rng.choice(ODD)
    dtype = helper.tensor_dtype_to_np_dtype(made.data_type)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = np.array([_float(rng) for _ in range(count)], dtype)
        made.raw_data = values.tobytes()
    else:
        low = 0 if dtype.kind in "ub" else -2
        numbers = [rng.randint(low, 1 if dtype.kind == "b" else 4) for _ in range(count)]
        made.raw_data = np.array(numbers, dtype).tobytes()
        if dtype == np.int64 and rng.random() < 0.1:
            made.raw_data = np.array([_int(rng) for _ in range(count)], dtype).tobytes()
    if rng.random() < 0.03:
        made.data_type = rng.choice(ODD[:8])
    return made


def _attribute(rng: random.Random, name: str, kind: int, opset: int, depth: int) -> AttributeProto:
    made = AttributeProto(name=name, type=kind)
    count = rng.choice((0, 1, 1, 2, 2, 3, 4, 8))
    if kind == AttributeProto.INT:
        made.i = _int(rng)
    elif kind == AttributeProto.INTS:
        made.ints.extend(_int(rng) for _ in range(count))
    elif kind == AttributeProto.FLOAT:
        made.f = _float(rng)
    elif kind == AttributeProto.FLOATS:
        made.floats.extend(_float(rng) for _ in range(count))
    elif kind == AttributeProto.STRING:
        made.s = rng.choice(_WORDS).encode()
    elif kind == AttributeProto.STRINGS:
        made.strings.extend(rng.choice(_WORDS).encode() for _ in range(count))
    elif kind == AttributeProto.TENSOR:
        made.t.CopyFrom(tensor(rng, ""))
    elif kind == AttributeProto.GRAPH:
        made.g.CopyFrom(graph(rng, opset, depth + 1))
    return made


def _node(rng: random.Random, names: list[str], opset: int, depth: int, number: int) -> NodeProto:
    op_type = rng.choice(operators())
    try:
        schema = defs.get_schema(op_type, opset, "")
    except defs.SchemaError:
        return NodeProto(op_type=op_type, input=[rng.choice(names)], output=[f"v{depth}.{number}"])
    node = NodeProto(op_type=op_type, name=f"n{number}" if rng.random() < 0.5 else "")
    most = min(schema.max_input, schema.min_input + 3)
    for _ in range(rng.randint(schema.min_input, max(schema.min_input, most))):
        luck = rng.random()
        node.input.append("" if luck < 0.06 else "nowhere" if luck < 0.08 else rng.choice(names))
    most = min(schema.max_output, schema.min_output + 2)
    for i in range(max(1, rng.randint(schema.min_output, max(schema.min_output, most)))):
        taken = rng.random() < 0.03
        node.output.append(rng.choice(names) if taken else f"v{depth}.{number}.{i}")
    for name, attribute in schema.attributes.items():
        if attribute.required or rng.random() < 0.4:
            kind = _KINDS.get(attribute.type, AttributeProto.INT)
            if rng.random() < 0.03:
                kind = rng.choice(tuple(_KINDS.values()))
            if kind != AttributeProto.GRAPH or depth < 3:
                node.attribute.append(_attribute(rng, name, kind, opset, depth))
    return node


def _value(rng: random.Random, name: str) -> Any:
    shape: list[Any] = list(rng.choice(_SHAPES))
    if shape and rng.random() < 0.1:
        shape[rng.randrange(len(shape))] = rng.choice((*ODD, "N", None))
    return helper.make_tensor_value_info(name, rng.choice(_TYPES), shape)


def graph(rng: random.Random, opset: int, depth: int = 0) -> GraphProto:
    """Return a graph of a few nodes."""
    made = GraphProto(name="g")
    for i in range(rng.randint(0 if depth else 1, 3)):
        made.input.append(_value(rng, f"x{depth}.{i}"))
    for i in range(rng.randint(0, 3)):
        made.initializer.append(tensor(rng, f"w{depth}.{i}"))
    names = [e.name for e in made.input] + [t.name for t in made.initializer] or ["x0.0"]
    for number in range(rng.randint(1, 4)):
        node = _node(rng, names, opset, depth, number)
        made.node.append(node)
        names.extend(name for name in node.output if name)
    if rng.random() < 0.03:
        made.node.reverse()  # cycles and uses before their makers
    last = list(made.node[-1].output) or names
    for name in dict.fromkeys([*last, rng.choice(names)]):
        made.output.append(helper.make_empty_tensor_value_info(name))
    return made


def invented(rng: random.Random) -> bytes:
    """Return a model file."""
    model = ModelProto(ir_version=rng.randint(3, 10))
    opset = rng.randint(7, defs.onnx_opset_version())
    model.opset_import.append(helper.make_opsetid("", opset))
    model.graph.CopyFrom(graph(rng, opset))
    data: bytes = model.SerializeToString()
    return data
