"""Mutations of model files: bytes turned at random, and fields of the message set to odd values.

A field is chosen evenly among all fields that are set anywhere in the model: attributes, shapes,
operator sets, names that then dangle, repeat or close a cycle, types and lengths of tensors.
"""

from __future__ import annotations

import random
from typing import Any

from helpers.onnx_models import exported, pretrained, textual
from onnx import AttributeProto, ModelProto

#: Numbers that files lie with.
ODD = (
    0, 1, -1, 2, 3, 7, -2, 127, 255, 65536, 2**31 - 1, 2**31, -(2**31), 2**33, 2**40, 2**62,
    2**63 - 1, -(2**63),
)  # fmt: skip
ODD_FLOATS = (0.0, -1.0, 1e38, -1e38, float("inf"), float("-inf"), float("nan"), 1e-40)
_MESSAGE, _STRING, _BYTES_TYPE, _FLOATS, _ENUM = 10, 9, 12, (5, 6), 8


class Corpus:
    """Model files to start from: small ones mostly, pretrained ones where they are installed."""

    def __init__(self, *, large: bool) -> None:
        self.small = [*exported(), *textual().values()]
        self.large = [f.read_bytes() for f in pretrained().values()] if large else []

    def choose(self, rng: random.Random) -> bytes:
        """Return a file; a large one in six times, since those take longest."""
        return rng.choice(self.large if self.large and rng.random() < 1 / 6 else self.small)


def _messages(message: Any, found: list[Any]) -> None:
    found.append(message)
    for field, value in message.ListFields():
        if field.cpp_type == _MESSAGE:
            for inner in value if not hasattr(value, "ListFields") else [value]:
                _messages(inner, found)


def mutate_message(model: ModelProto, rng: random.Random) -> None:
    """Change one field somewhere in a model."""
    messages: list[Any] = []
    _messages(model, messages)
    message = rng.choice(messages)
    fields = message.ListFields()
    if not fields:
        return
    field, value = rng.choice(fields)
    repeated = hasattr(value, "append") or hasattr(value, "add")
    if field.cpp_type == _MESSAGE:
        if repeated:
            _mutate_list(value, rng)
        else:
            message.ClearField(field.name)
        return
    new = _odd_value(field, model, rng)
    try:
        if not repeated:
            setattr(message, field.name, new)
        elif rng.random() < 0.7:
            value[rng.randrange(len(value))] = new
        else:
            value.extend([new] * rng.choice((1, 2, 40)))
    except (ValueError, TypeError):
        pass  # the field's own type does not take this number


def _mutate_list(messages: Any, rng: random.Random) -> None:
    """Drop, repeat, replace or swap an entry: a node, attribute, input, extent, operator set."""
    how, at, other = rng.random(), rng.randrange(len(messages)), rng.randrange(len(messages))
    if how < 0.3:
        del messages[at]
    elif how < 0.6:
        messages.add().CopyFrom(messages[at])
    elif how < 0.8:
        messages[at].CopyFrom(messages[other])
    else:
        kept = type(messages[at])()
        kept.CopyFrom(messages[at])
        messages[at].CopyFrom(messages[other])
        messages[other].CopyFrom(kept)


def _odd_value(field: Any, model: ModelProto, rng: random.Random) -> Any:
    if field.cpp_type == _STRING:
        names = [n for node in model.graph.node for n in (*node.input, *node.output, node.op_type)]
        text = rng.choice([*names, "", "x" * 300, "é", "../x", "SAME_UPPER", "ai.onnx", "Loop"])
        return text.encode() if field.type == _BYTES_TYPE else text
    if field.cpp_type in _FLOATS:
        return rng.choice(ODD_FLOATS)
    if field.cpp_type == _ENUM:
        return rng.choice(list(AttributeProto.AttributeType.values()))
    return rng.choice(ODD)


def mutate_bytes(data: bytes, corpus: Corpus, rng: random.Random) -> bytes:
    """Turn, drop, insert or splice bytes at a few places."""
    raw = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(raw))
        how = rng.random()
        if how < 0.5:
            raw[at] = rng.randrange(256)
        elif how < 0.7:
            del raw[at : at + rng.choice((1, 4, 100, len(raw) // 2))]
        elif how < 0.9:
            raw[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 20))))
        else:
            raw[at : at + 50] = corpus.choose(rng)[at : at + 50]
        if not raw:
            raw = bytearray(b"\0")
    return bytes(raw)


def mutated(rng: random.Random, corpus: Corpus) -> bytes:
    """Return a mutated model file: by field three times in four, else by byte."""
    data = corpus.choose(rng)
    if rng.random() < 0.25:
        return mutate_bytes(data, corpus, rng)
    model = ModelProto()
    model.ParseFromString(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        mutate_message(model, rng)
    return model.SerializeToString()
