"""If, Loop and Scan: resolved or unrolled when that can be decided now, nested nets otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto

from asyncnet_gpu.blob import Blob
from asyncnet_gpu.errors import OnnxImportError
from asyncnet_gpu.onnx.context import NeedsValue, NodeContext, Value
from asyncnet_gpu.onnx.importer import Scope
from asyncnet_gpu.onnx.narrow import Narrow
from asyncnet_gpu.onnx.nested import NestedNet, import_body
from asyncnet_gpu.ops.base import OnnxMapping
from asyncnet_gpu.ops.control import MOST_PASSES
from asyncnet_gpu.specs import TensorSpec, spec


def inline(context: NodeContext, graph: GraphProto, inputs: dict[str, Value]) -> list[Value]:
    """Import a subgraph into the net around it."""
    around = context.scope
    scope = Scope(around, around.opsets, around.depth + 1, around.attributes)
    return context.importer.graph(graph, inputs, scope)


def _truth(context: NodeContext, value: Any, what: str) -> bool:
    array = np.asarray(value)
    if array.size != 1:
        context.fail(what, expected="one bool", got=f"{array.dtype}{list(array.shape)}",
                     remedy="The file is broken.")  # fmt: skip
    return bool(array.reshape(-1)[0])


def _is_switch(context: NodeContext, value: Blob) -> bool:
    """Whether a blob depends on nothing but single numbers that a caller gives, as options are."""
    importer = context.importer
    names = importer.inputs_behind(value)
    specs = [importer.net.spec_of(name) for name in names]
    return bool(specs) and all(s.size <= 1 and s.dtype.kind in "iub" for s in specs)


# -- If ----------------------------------------------------------------------------------------


def _if(context: NodeContext, node: Any) -> Any:
    condition = context.x(0)
    branches = context.attr_graph("then_branch"), context.attr_graph("else_branch")
    if isinstance(condition, Blob):
        if _is_switch(context, condition):
            # One plan for each way is better than a branch in every run.
            condition = context.known_value(condition, "condition")
        else:
            return _nested_if(context, condition, branches)
    chosen = branches[0 if _truth(context, condition, "condition") else 1]
    return tuple(inline(context, chosen, {}))


def _nested_if(
    context: NodeContext, condition: Blob, branches: tuple[GraphProto, GraphProto]
) -> Any:
    then, then_blobs = import_body(context, branches[0], (), "then_branch")
    otherwise, other_blobs = import_body(context, branches[1], (), "else_branch")
    if then.out_specs != otherwise.out_specs:
        context.known_value(condition, "condition, which decides shapes,")
    names = {b.name: b for b in (*then_blobs, *other_blobs)}
    place = {name: i + 1 for i, name in enumerate(names)}
    return context.result(
        "cond", condition, *names.values(), then=then, otherwise=otherwise,
        then_inputs=tuple(place[b.name] for b in then_blobs),
        otherwise_inputs=tuple(place[b.name] for b in other_blobs),
    )  # fmt: skip


# -- Loop --------------------------------------------------------------------------------------


def _loop(context: NodeContext, node: Any) -> Any:
    count, condition = context.maybe(0), context.maybe(1)
    body = context.attr_graph("body")
    states = [context.value(i) for i in range(2, context.n_inputs)]
    if len(body.input) != len(states) + 2 or len(body.output) <= len(states):
        context.fail("attribute 'body'", expected=f"{len(states) + 2} inputs",
                     got=len(body.input), remedy="The file is broken.")  # fmt: skip
    if any(s is None or isinstance(s, (list, Narrow)) for s in states):
        # Such a state exists while importing only: the passes have to be known.
        count = None if count is None else context.known_value(count, "number of passes")
        if condition is not None:
            condition = context.known_value(condition, "condition")
    decides = next((v for v in (count, condition) if isinstance(v, Blob)), None)
    if decides is None:
        made = _unrolled_loop(context, body, count, condition, states)
        if isinstance(made, tuple):
            return made
        decides = made
    return _nested_loop(context, body, count, condition, states, decides)


def _n_nodes(graph: GraphProto) -> int:
    total = 0
    for node in graph.node:
        total += 1
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                total += _n_nodes(attribute.g)
    return total


def _unrolled_loop(
    context: NodeContext, body: GraphProto, count: Any, condition: Any, states: list[Value]
) -> tuple[Any, ...] | Blob | None:
    """Import the body once for each pass.

    Returns
    -------
    The results; what decides at run time whether there is another pass; None where that would be
    too many nodes.
    """
    budget = context.importer.budget
    passes = None if count is None else int(np.asarray(count).reshape(-1)[0])
    if passes is not None and passes * _n_nodes(body) > budget.limits.max_unrolled_nodes:
        return None
    more = condition is None or _truth(context, condition, "condition")
    names = [entry.name for entry in body.input]
    n, i = len(states), 0
    rows: list[list[Value]] = []
    while more and (passes is None or i < passes):
        budget.loop(i + 1, context.where)
        given: list[Value] = [np.asarray(i, np.int64), np.asarray(True), *states]
        results = inline(context, body, dict(zip(names, given, strict=True)))
        if isinstance(results[0], Blob):
            return results[0]
        more = _truth(context, results[0], "condition of the body")
        states = results[1 : 1 + n]
        rows.append(results[1 + n :])
        i += 1
    n_each = len(body.output) - 1 - n
    stacked = [_stacked(context, [row[k] for row in rows], body.output[1 + n + k], 0)
               for k in range(n_each)]  # fmt: skip
    return (*states, *stacked)


def _stacked(context: NodeContext, parts: Sequence[Any], entry: Any, axis: int) -> Value:
    """Join what each pass gave along a new axis."""
    if not parts:
        return _empty(context, entry, axis)
    if any(isinstance(p, list) or p is None for p in parts):
        context.unsupported("sequences as results of every pass")
    joined: Value = context.emit(
        "concat", *[context.emit("unsqueeze", p, axes=(axis,)) for p in parts], axis=axis
    )
    return joined


def _empty(context: NodeContext, entry: Any, axis: int) -> Value:
    """Return the results of no pass at all: only the file says what they would have been."""
    from asyncnet_gpu.onnx.tensors import element_dtype

    tensor = entry.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    shape.insert(axis, 0)
    context.importer.budget.tensor(shape, 8, context.where)
    return np.zeros(shape, element_dtype(tensor.elem_type, context.where))


def _spec(context: NodeContext, value: Value) -> TensorSpec:
    if value is None or isinstance(value, (list, Narrow)):
        context.unsupported("a sequence or narrow number carried by a loop that is not unrolled")
    return TensorSpec(tuple(value.shape), np.dtype(value.dtype))


def _nested_loop(
    context: NodeContext, body: GraphProto, count: Any, condition: Any, states: list[Value],
    decides: Blob | None,
) -> Any:  # fmt: skip
    specs = [spec((), "int64"), spec((), "bool"), *[_spec(context, s) for s in states]]
    inputs = list(zip([entry.name for entry in body.input], specs, strict=True))
    # The condition that a pass sees is always true: as a constant it vanishes with what it steers.
    wrapped = GraphProto()
    wrapped.CopyFrom(body)
    flag = wrapped.initializer.add()
    flag.name, flag.data_type = body.input[1].name, 9
    flag.int32_data.append(1)
    del inputs[1]
    try:
        nested, captured = import_body(context, wrapped, inputs, "body")
    except NeedsValue as needed:
        if needed.inputs:
            raise
        return _refused_unless_known(context, decides)
    passes = None if count is None or isinstance(count, Blob) else int(np.asarray(count).flat[0])
    if passes is not None and passes > MOST_PASSES:
        context.fail("number of passes", expected=f"at most {MOST_PASSES}", got=passes,
                     remedy="Cut the loop into several.")  # fmt: skip
    always = condition is None or (not isinstance(condition, Blob) and bool(np.all(condition)))
    going_on = nested.constant(0)
    if passes is not None and always and going_on is not None and going_on.all():
        return _counted_loop(context, nested.without_first(), states, captured, passes)
    if count is None:
        count = np.asarray(np.iinfo(np.int64).max)
    if len(body.output) > 1 + len(states) or nested.out_specs[1 : 1 + len(states)] != tuple(
        specs[2:]
    ):
        return _refused_unless_known(context, decides)
    first = [] if passes is not None else [count]
    if condition is not None:
        first.append(condition)
    return context.result(
        "loop", *first, *states, *captured, body=nested, n_states=len(states), count=passes,
        gives_condition=True, has_condition=condition is not None,
    )  # fmt: skip


def _counted_loop(
    context: NodeContext, body: NestedNet, states: list[Value], captured: list[Blob], passes: int
) -> Any:
    """A loop that no condition ends: what each pass gives has a place that is known."""
    n = len(states)
    if body.out_specs[:n] != tuple(_spec(context, s) for s in states):
        context.unsupported("a loop whose states change their shape from pass to pass")
    n_each = len(body.out_specs) - n
    return context.result(
        "loop", *states, *captured, body=body, n_states=n, count=passes,
        result_axes=(0,) * n_each, result_backwards=(False,) * n_each,
    )  # fmt: skip


def _refused_unless_known(context: NodeContext, decides: Blob | None) -> Any:
    """Shapes depend on the number of passes: ask for what decides it, or refuse."""
    if decides is not None:
        context.known_value(decides, "number of passes, which decides shapes,")
    context.unsupported(
        "a loop whose results depend on how often it runs",
        "Raise Limits(max_unrolled_nodes=...) if the number of passes is known.",
    )


# -- Scan --------------------------------------------------------------------------------------


def _directions(context: NodeContext, name: str, count: int) -> tuple[int, ...]:
    found: tuple[int, ...] = context.attr_ints(name, (0,) * count)
    if len(found) != count:
        context.fail(f"attribute {name!r}", expected=f"{count} entries", got=len(found),
                     remedy="The file is broken.")  # fmt: skip
    return found


def _scan(context: NodeContext, node: Any) -> Any:
    body, n_scanned = context.attr_graph("body"), context.attr_int("num_scan_inputs")
    values = context.tensors()
    n = len(values) - n_scanned
    n_each = len(body.output) - n
    if not 0 < n_scanned <= len(values) or len(body.input) != len(values) or n_each < 0:
        context.fail("attribute 'num_scan_inputs'", expected=f"1 to {len(values)}", got=n_scanned,
                     remedy="The file is broken.")  # fmt: skip
    states, scanned = values[:n], values[n:]
    axes = [
        a % len(x.shape)
        for a, x in zip(_directions(context, "scan_input_axes", n_scanned), scanned, strict=True)
    ]
    backwards = _directions(context, "scan_input_directions", n_scanned)
    lengths = {x.shape[a] for x, a in zip(scanned, axes, strict=True)}
    if len(lengths) != 1:
        context.fail("scanned inputs", expected="one length", got=sorted(lengths),
                     remedy="The file is broken.")  # fmt: skip
    (count,) = lengths
    budget = context.importer.budget
    if count * _n_nodes(body) > budget.limits.max_unrolled_nodes:
        return _nested_scan(context, body, states, scanned, axes, backwards)
    return _unrolled_scan(context, body, states, scanned, axes, backwards, count)


def _unrolled_scan(
    context: NodeContext, body: GraphProto, states: list[Any], scanned: list[Any],
    axes: list[int], backwards: tuple[int, ...], count: int,
) -> Any:  # fmt: skip
    names = [entry.name for entry in body.input]
    n = len(states)
    values: list[Value] = list(states)
    rows: list[list[Value]] = []
    for i in range(count):
        slices = []
        for x, axis, back in zip(scanned, axes, backwards, strict=True):
            at = count - 1 - i if back else i
            part = context.emit("slice", x, starts=(at,), ends=(at + 1,), axes=(axis,))
            slices.append(context.emit("squeeze", part, axes=(axis,)))
        results = inline(context, body, dict(zip(names, [*values, *slices], strict=True)))
        values = results[:n]
        rows.append(results[n:])
    out_axes, out_back = _result_layout(context, body, n)
    stacked = []
    for k, (axis, back) in enumerate(zip(out_axes, out_back, strict=True)):
        parts: list[Any] = [row[k] for row in (rows[::-1] if back else rows)]
        axis = axis + len(parts[0].shape) + 1 if axis < 0 and parts else axis
        stacked.append(_stacked(context, parts, body.output[n + k], axis))
    return (*values, *stacked)


def _result_layout(
    context: NodeContext, body: GraphProto, n: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    count = len(body.output) - n
    return (_directions(context, "scan_output_axes", count),
            _directions(context, "scan_output_directions", count))  # fmt: skip


def _nested_scan(
    context: NodeContext, body: GraphProto, states: list[Any], scanned: list[Any],
    axes: list[int], backwards: tuple[int, ...],
) -> Any:  # fmt: skip
    slices = [
        TensorSpec((*x.shape[:a], *x.shape[a + 1 :]), np.dtype(x.dtype))
        for x, a in zip(scanned, axes, strict=True)
    ]
    specs = [*[_spec(context, s) for s in states], *slices]
    names = [entry.name for entry in body.input]
    inputs = [("pass number", spec((), "int64")), *zip(names, specs, strict=True)]
    nested, captured = import_body(context, body, inputs, "body")
    n = len(states)
    out_axes, out_back = _result_layout(context, body, n)
    ranks = [len(s.shape) + 1 for s in nested.out_specs[n:]]
    return context.result(
        "loop", *states, *scanned, *captured, body=nested, n_states=n,
        count=scanned[0].shape[axes[0]], scan_axes=tuple(axes),
        scan_backwards=tuple(map(bool, backwards)),
        result_axes=tuple(a % r for a, r in zip(out_axes, ranks, strict=True)),
        result_backwards=tuple(map(bool, out_back)),
    )  # fmt: skip


def _batched_scan(context: NodeContext, node: Any) -> Any:
    """Operator set 8 scanned axis 1 of batches, each with its own length."""
    if context.has(0):
        context.unsupported("sequence_lens of Scan in operator set 8")
    body, n_scanned = context.attr_graph("body"), context.attr_int("num_scan_inputs")
    values = [context.x(i) for i in range(1, context.n_inputs)]
    n = len(values) - n_scanned
    if n < 0 or not values:
        raise OnnxImportError(f"[{context.where}] num_scan_inputs is {n_scanned}")
    backwards = _directions(context, "directions", n_scanned)
    outputs: list[list[Any]] = []
    for b in range(values[0].shape[0]):
        rows = [context.emit("squeeze", context.emit("slice", v, starts=(b,), ends=(b + 1,)),
                             axes=(0,)) for v in values]  # fmt: skip
        count = rows[n].shape[0]
        made = _unrolled_scan(context, body, rows[:n], rows[n:], [0] * n_scanned, backwards, count)
        outputs.append(list(made))
    return tuple(
        context.emit("concat", *[context.emit("unsqueeze", v, axes=(0,)) for v in parts], axis=0)
        for parts in zip(*outputs, strict=True)
    )


NODES = {
    "If": OnnxMapping(build=_if),
    "Loop": OnnxMapping(build=_loop),
    "Scan": (OnnxMapping(until=8, build=_batched_scan), OnnxMapping(since=9, build=_scan)),
}
