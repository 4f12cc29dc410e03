"""Branches and loops: nested nets as graphs inside a node, which see the values around them."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto

from asyncnet_gpu.onnx.export import Writer
from asyncnet_gpu.onnx.nested import NestedNet
from asyncnet_gpu.specs import TensorSpec, spec


def _nested(w: Writer, name: str) -> NestedNet:
    body = w.attrs[name]
    if not isinstance(body, NestedNet):
        w.fail("a body that is a function of Python", "Only nested nets can be written.")
    return body


def _branch(w: Writer, name: str, indices: tuple[int, ...]) -> GraphProto:
    body, inner = _nested(w, name), w.inside(name)
    given = dict(zip(body.inputs, [w.inputs[i] for i in indices], strict=True))
    made = inner.body(body.net, given, body.outputs)
    return inner.graph(name, {}, dict(zip(made, body.out_specs, strict=True)))


def _if(w: Writer) -> None:
    w.node(
        "If", w.inputs[:1], w.outputs,
        then_branch=_branch(w, "then", w.attrs["then_inputs"]),
        else_branch=_branch(w, "otherwise", w.attrs["otherwise_inputs"]),
    )  # fmt: skip


def _loop(w: Writer) -> None:
    body, rest, attrs = _nested(w, "body"), list(w.inputs), w.attrs
    count = w.constant(np.asarray(attrs["count"], np.int64), "count") if (
        attrs["count"] is not None) else rest.pop(0)  # fmt: skip
    condition = rest.pop(0) if attrs["has_condition"] else ""
    n, m = attrs["n_states"], len(attrs["scan_axes"])
    states, scanned, captured = rest[:n], rest[n : n + m], rest[n + m :]
    inner = w.inside("body")
    index, flag = inner.value("pass", np.int64), inner.value("go_on", np.bool_)
    inputs = {index: spec((), "int64"), flag: spec((), "bool")}
    held = [inner.value(f"state{i}", s.dtype) for i, s in enumerate(body.in_specs[1 : 1 + n])]
    inputs.update(zip(held, body.in_specs[1 : 1 + n], strict=True))
    slices = [
        _slice(inner, w, i, x, index, body.in_specs[1 + n + i]) for i, x in enumerate(scanned)
    ]
    given = dict(zip(body.inputs, [index, *held, *slices, *captured], strict=True))
    made, specs = inner.body(body.net, given, body.outputs), list(body.out_specs)
    if not attrs["gives_condition"]:
        made.insert(0, inner.value("again", np.bool_))
        specs.insert(0, spec((), "bool"))
        inner.node("Identity", [flag], made[:1])
    graph = inner.graph("body", inputs, dict(zip(made, specs, strict=True)))
    outputs = [_turned_back(w, i, s) for i, s in enumerate(w.outs[n:])]
    w.node("Loop", [count, condition, *states], [*w.outputs[:n], *outputs], body=graph)
    for i, (name, axis) in enumerate(zip(outputs, attrs["result_axes"], strict=True)):
        _turn(w, name, w.outputs[n + i], axis, len(w.outs[n + i].shape),
              backwards=attrs["result_backwards"][i])  # fmt: skip


def _slice(inner: Writer, w: Writer, number: int, x: str, index: str, part: TensorSpec) -> str:
    """Write what a pass reads of an input that is scanned."""
    axis = w.attrs["scan_axes"][number]
    if w.attrs["scan_backwards"][number]:
        last = inner.constant(np.asarray(w.attrs["count"] - 1, np.int64), f"last{number}")
        index = inner.step("Sub", [last, index], np.int64)
    return inner.step("Gather", [x, index], part.dtype, axis=axis)


def _turned_back(w: Writer, number: int, made: TensorSpec) -> str:
    """Return the name under which the loop gives results that it stacks along axis 0."""
    n = w.attrs["n_states"]
    plain = not w.attrs["result_axes"][number] and not w.attrs["result_backwards"][number]
    return w.outputs[n + number] if plain else w.value(f"stacked{number}", made.dtype)


def _turn(w: Writer, source: str, target: str, axis: int, rank: int, *, backwards: bool) -> None:
    """Write what brings stacked results into the order that is wanted."""
    if source == target:
        return
    if backwards:
        bounds = [w.ints([v], name) for v, name in ((-1, "from"), (-(2**62), "to"), (0, "axis"))]
        steps = [*bounds, w.ints([-1], "step")]
        if not axis:
            w.node("Slice", [source, *steps], [target])
            return
        source = w.step("Slice", [source, *steps], w.outs[-1].dtype)
    perm = list(range(1, rank))
    perm.insert(axis, 0)
    w.node("Transpose", [source], [target], perm=perm)


WRITERS = {"cond": _if, "loop": _loop}
