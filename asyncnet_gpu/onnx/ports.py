"""What crosses the border of a model that is no plain tensor, as plain tensors.

A sequence is as many tensors as it has elements, an optional value one tensor or none, a text its
characters as bytes, a narrow number its code. How many and which of them there are is the *layout*
of an input: it belongs to the signature, since each layout makes another net.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto, TensorProto, TypeProto

from asyncnet_gpu.errors import NetError, OnnxImportError, message
from asyncnet_gpu.onnx.narrow import NARROW, Narrow, array_from_codes, codes_from_array
from asyncnet_gpu.onnx.tensors import ELEMENT_DTYPES

Array = np.ndarray[Any, Any]

#: "tensor", the layouts of a sequence's elements, or None for an optional value that is not there.
Layout = Any

_SMALLER = {"sequence_type": "sequence", "optional_type": "optional"}


class Leaf(NamedTuple):
    """One tensor of a port: its name, and what it is."""

    name: str
    type: TypeProto

    @property
    def element_type(self) -> int:
        """ONNX element type."""
        return int(self.type.tensor_type.elem_type)

    @property
    def is_text(self) -> bool:
        """Whether its elements are strings."""
        return bool(self.element_type == TensorProto.STRING)


def is_plain(type_: TypeProto) -> bool:
    """Whether a port is a tensor of a type that blobs have, or of none that the file names."""
    kind = type_.WhichOneof("value")
    if kind is None:
        return True
    return bool(kind == "tensor_type" and type_.tensor_type.elem_type in {0, *ELEMENT_DTYPES})


def has_ports(model: ModelProto, inputs: list[Any]) -> bool:
    """Whether anything that crosses the border of a model is no plain tensor, but can be."""
    return any(
        not is_plain(entry.type) and _possible(entry.type)
        for entry in (*inputs, *model.graph.output)
    )


def _possible(type_: TypeProto) -> bool:
    kind = type_.WhichOneof("value")
    if kind in _SMALLER:
        return _possible(getattr(type_, kind).elem_type)
    known = {TensorProto.STRING, *NARROW, *ELEMENT_DTYPES}
    return kind == "tensor_type" and type_.tensor_type.elem_type in known


def _element(type_: TypeProto) -> TypeProto:
    element: TypeProto = getattr(type_, type_.WhichOneof("value")).elem_type
    return element


def leaves(name: str, type_: TypeProto, layout: Layout) -> Iterator[Leaf]:
    """Yield the tensors that a port of some layout consists of."""
    if isinstance(layout, tuple):
        inner = type_ if type_.WhichOneof("value") == "sequence_type" else _element(type_)
        for i, part in enumerate(layout):
            yield from leaves(f"{name}[{i}]", _element(inner), part)
    elif layout is not None:
        while type_.WhichOneof("value") == "optional_type":
            type_ = _element(type_)
        yield Leaf(name, type_)


def assemble(name: str, layout: Layout, tensors: Mapping[str, Any]) -> Any:
    """Return a port's value from its tensors by name."""
    if isinstance(layout, tuple):
        return [assemble(f"{name}[{i}]", part, tensors) for i, part in enumerate(layout)]
    return None if layout is None else tensors[name]


# -- a caller's values ---------------------------------------------------------------------------


def flatten(name: str, type_: TypeProto, value: Any, tensors: dict[str, Any]) -> Layout:
    """Put the tensors of a caller's value for an input into `tensors`; return its layout.

    Raises
    ------
    NetError
        If the value is not of the kind that the input has.
    """
    kind = type_.WhichOneof("value")
    if kind == "optional_type":
        return None if value is None else flatten(name, _element(type_), value, tensors)
    if kind == "sequence_type":
        if not isinstance(value, (list, tuple)):
            _refuse(name, "a list of values", value)
        return tuple(
            flatten(f"{name}[{i}]", _element(type_), part, tensors) for i, part in enumerate(value)
        )
    if value is None or (isinstance(value, (list, tuple)) and kind is None):
        _refuse(name, "an array", value)
    element_type = type_.tensor_type.elem_type
    if element_type == TensorProto.STRING:
        tensors[name] = text_bytes(np.asarray(value, object))
    elif element_type in NARROW:
        array = np.asarray(value)
        if array.dtype.name != NARROW[element_type].name:
            _refuse(name, f"an array of ml_dtypes.{NARROW[element_type].name}", array.dtype.name)
        tensors[name] = codes_from_array(array, element_type)
    else:
        dtype = ELEMENT_DTYPES[element_type]
        tensors[name] = value if hasattr(value, "shape") else np.asarray(value, dtype)
    return "tensor"


def _refuse(name: str, expected: str, got: object) -> None:
    raise NetError(
        message("run", f"input {name!r}", expected=expected, got=type(got).__name__,
                remedy="Give what the model's input is.")
    )  # fmt: skip


def text_bytes(array: Array) -> Array:
    """Return an array of strings as bytes."""
    texts = [t.decode() if isinstance(t, bytes) else str(t) for t in array.reshape(-1).tolist()]
    data = json.dumps([list(array.shape), texts]).encode()
    return np.frombuffer(data, np.uint8)


def text_array(data: Array) -> Array:
    """Return the array of strings that `text_bytes` wrote."""
    shape, texts = json.loads(np.asarray(data).tobytes())
    made = np.empty(len(texts), object)
    made[:] = texts
    return made.reshape(shape)


# -- results ---------------------------------------------------------------------------------------


def results(name: str, type_: TypeProto, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and tensor of all that a result of the importer consists of.

    Raises
    ------
    OnnxImportError
        If the value is not of the kind that the model says.
    """
    kind = type_.WhichOneof("value")
    if kind == "optional_type":
        yield f"{name}?", np.asarray(value is not None)
        if value is not None:
            yield from results(name, _element(type_), value)
    elif kind == "sequence_type" and isinstance(value, list):
        yield f"{name}[]", np.asarray(len(value), np.int64)
        for i, part in enumerate(value):
            yield from results(f"{name}[{i}]", _element(type_), part)
    elif kind == "sequence_type" or value is None or isinstance(value, list):
        raise OnnxImportError(
            message(f"onnx output {name[:200]!r}", "kind of value",
                    expected=(kind or "a tensor").replace("_type", ""), got=_kind(value),
                    remedy="Convert the model.")
        )  # fmt: skip
    elif isinstance(value, Narrow) or value.dtype == object:
        _check_declared(name, type_, value)
        yield name, value.codes if isinstance(value, Narrow) else text_bytes(value)
    else:
        yield name, value


def _check_declared(name: str, type_: TypeProto, value: Any) -> None:
    """Refuse texts and narrow numbers that the model does not say come out: they are codes here."""
    declared = type_.tensor_type.elem_type
    element = value.element_type if isinstance(value, Narrow) else TensorProto.STRING
    if declared != element:
        names = dict(zip(TensorProto.DataType.values(), TensorProto.DataType.keys(), strict=True))
        raise OnnxImportError(
            message(f"onnx output {name[:200]!r}", "element type",
                    expected=names.get(declared, declared), got=names[element],
                    remedy="Declare the output's type in the model.")
        )  # fmt: skip


def _kind(value: Any) -> str:
    return "nothing" if value is None else "a sequence" if isinstance(value, list) else "a tensor"


def collect(name: str, type_: TypeProto, outputs: Mapping[str, Any], to_numpy: Any) -> Any:
    """Return the value of an output from the tensors of a run."""
    kind = type_.WhichOneof("value")
    if kind == "optional_type":
        there = bool(to_numpy(outputs[f"{name}?"]))
        return collect(name, _element(type_), outputs, to_numpy) if there else None
    if kind == "sequence_type":
        count = int(to_numpy(outputs[f"{name}[]"]))
        parts = range(count)
        return [collect(f"{name}[{i}]", _element(type_), outputs, to_numpy) for i in parts]
    element_type = type_.tensor_type.elem_type
    if element_type == TensorProto.STRING:
        return text_array(to_numpy(outputs[name]))
    if element_type in NARROW:
        return array_from_codes(to_numpy(outputs[name]), element_type)
    return outputs[name]
