"""LSTM, GRU and RNN: optional inputs filled in, layouts turned, activations gathered."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.ops.base import OnnxMapping
from asyncnet_gpu.ops.cell_activations import ACTIVATIONS
from asyncnet_gpu.ops.recurrent import DIRECTIONS, N_GATES

#: Activations that take a first or second number, which ONNX lists without gaps.
_TAKES_ALPHA = {"affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"}
_TAKES_BETA = {"affine", "scaledtanh", "hardsigmoid"}


def _activations(context: NodeContext) -> tuple[tuple[str, Any, Any], ...] | None:
    names = context.attr_strs("activations", None)
    if names is None:
        return None
    alphas = list(context.attr_floats("activation_alpha", ()))
    betas = list(context.attr_floats("activation_beta", ()))
    found = []
    for name in names:
        plain = name.lower()
        if plain not in ACTIVATIONS:
            context.fail("attribute 'activations'", expected=", ".join(ACTIVATIONS),
                         got=name[:200], remedy="Use another activation.")  # fmt: skip
        a = alphas.pop(0) if alphas and plain in _TAKES_ALPHA else None
        b = betas.pop(0) if betas and plain in _TAKES_BETA else None
        found.append((plain, a, b))
    return tuple(found)


def _zeros(context: NodeContext, shape: tuple[int, ...], dtype: Any) -> Any:
    nbytes = context.importer.budget.tensor(shape, 8, context.where)
    context.importer.budget.constant(nbytes, context.where)
    return np.zeros(shape, dtype)


def _swap(context: NodeContext, value: Any) -> Any:
    order = (1, 0, *range(2, len(value.shape)))
    return context.emit("transpose", value, axes=order)


def _cell(cell: str) -> OnnxMapping:
    gates = N_GATES[cell]
    n_states = 2 if cell == "lstm" else 1

    def build(context: NodeContext, node: Any) -> Any:
        x, w, r = context.x(0), context.x(1), context.x(2)
        batch_first = bool(context.attr_int("layout", 0))
        direction = context.attr_str("direction", "forward")
        if direction not in DIRECTIONS or any(len(v.shape) != 3 for v in (x, w, r)):
            context.fail("direction or inputs", expected=f"{', '.join(DIRECTIONS)}; 3 axes each",
                         got=f"{direction}; {[list(v.shape) for v in (x, w, r)]}",
                         remedy="The file is broken.")  # fmt: skip
        x = _swap(context, x) if batch_first else x
        d, hidden, batch = len(DIRECTIONS[direction]), r.shape[2], x.shape[1]
        bias = context.maybe(3)
        if bias is None:
            bias = _zeros(context, (d, 2 * gates * hidden), x.dtype)
        states = []
        for i in range(5, 5 + n_states):
            state = context.maybe(i)
            if state is None:
                state = _zeros(context, (d, batch, hidden), x.dtype)
            elif batch_first:
                state = _swap(context, state)
            states.append(state)
        lengths, peephole = context.maybe(4), context.maybe(7) if cell == "lstm" else None
        extra = [v for v in (peephole, lengths) if v is not None]
        attrs: dict[str, Any] = {
            "direction": direction, "activations": _activations(context),
            "clip": context.attr_float("clip", None), "has_lengths": lengths is not None,
            "has_peephole": peephole is not None,
        }  # fmt: skip
        if cell == "lstm":
            attrs["couple_gates"] = bool(context.attr_int("input_forget", 0))
        if cell == "gru":
            attrs["reset_after"] = bool(context.attr_int("linear_before_reset", 0))
        if not batch_first:
            return context.result(cell, x, w, r, bias, *states, *extra, **attrs)[
                : context.n_outputs
            ]
        y, *last = context.emit(cell, x, w, r, bias, *states, *extra, **attrs)
        made = [context.emit("transpose", y, axes=(2, 0, 1, 3)), *[_swap(context, s) for s in last]]
        return tuple(made[: context.n_outputs])

    return OnnxMapping(build=build)


NODES = {"GRU": _cell("gru"), "LSTM": _cell("lstm"), "RNN": _cell("rnn")}
