"""Recurrent layers: LSTM, GRU and the plain RNN, over a whole sequence.

The products of all inputs with the input weights are one matrix product before the first step; a
step is then one product with the state and the gates' elementwise work, in planned memory. On CUDA
``recurrent.cu`` does a step in one launch or two (`recurrent_kernel`).

Sources: S. Hochreiter, J. Schmidhuber, *Long short-term memory*, 1997, with peepholes of F. Gers,
J. Schmidhuber, 2000; K. Cho et al., *Learning phrase representations*, 2014 (GRU). Order of the
gates as in ONNX: LSTM input, output, forget, cell; GRU update, reset, hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    FLOATS,
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.cell_activations import ACTIVATIONS
from asyncnet_gpu.ops.checks import fail, one_of
from asyncnet_gpu.ops.recurrent_kernel import Layer, launches, scratch_specs
from asyncnet_gpu.specs import TensorSpec

DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
N_GATES = {"lstm": 4, "gru": 3, "rnn": 1}

# -- activations, in place ---------------------------------------------------------------------

N_ACTIVATIONS = {"lstm": 3, "gru": 2, "rnn": 1}
_DEFAULTS = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",)}

Activation = Callable[[Any], None]


def _functions(cell: str, attrs: Attrs) -> list[list[tuple[str, float, float]]]:
    """Return name, alpha and beta of the activations of each direction."""
    chosen = attrs["activations"]
    n, n_directions = N_ACTIVATIONS[cell], len(DIRECTIONS[attrs["direction"]])
    flat = (
        [(name, None, None) for name in _DEFAULTS[cell]] * n_directions
        if chosen is None
        else chosen
    )
    made = []
    for name, a, b in flat:
        _, first, second = ACTIVATIONS[name]
        made.append((name, first if a is None else a, second if b is None else b))
    return [made[i * n : (i + 1) * n] for i in range(n_directions)]


def _activations(xp: Any, cell: str, attrs: Attrs) -> list[list[Activation]]:
    """Return the functions of each direction."""
    return [
        [_bound(xp, ACTIVATIONS[name][0], a, b) for name, a, b in functions]
        for functions in _functions(cell, attrs)
    ]


def _bound(xp: Any, function: Any, a: float, b: float) -> Activation:
    return lambda x: function(xp, x, a, b)


# -- shapes ------------------------------------------------------------------------------------


def _sizes(ins: Specs | Arrays, attrs: Attrs) -> tuple[int, int, int, int, int]:
    """Return steps, batch, width of the input, width of the state, number of directions."""
    x, r = ins[0], ins[2]
    return x.shape[0], x.shape[1], x.shape[2], r.shape[2], len(DIRECTIONS[attrs["direction"]])


def _infer(cell: str) -> Callable[[Specs, Attrs], Specs]:
    gates = N_GATES[cell]

    def infer(ins: Specs, attrs: Attrs) -> Specs:
        one_of(attrs["direction"], "direction", tuple(DIRECTIONS), where=cell)
        if [s.ndim for s in ins[:4]] != [3, 3, 3, 2]:
            fail(cell, "inputs x, w, r, b", expected="3, 3, 3 and 2 axes",
                 got=[s.ndim for s in ins[:4]], remedy="See the shapes in the help.")  # fmt: skip
        steps, batch, width, hidden, d = _sizes(ins, attrs)
        n_states = 2 if cell == "lstm" else 1
        wanted = [(steps, batch, width), (d, gates * hidden, width), (d, gates * hidden, hidden),
                  (d, 2 * gates * hidden), *[(d, batch, hidden)] * n_states]  # fmt: skip
        if attrs["has_peephole"]:
            wanted.append((d, 3 * hidden))
        n_floats = len(wanted)
        got = [s.shape for s in ins[:n_floats]]
        if got != wanted or len(ins) != n_floats + int(attrs["has_lengths"]):
            fail(cell, "shapes of the inputs", expected=wanted, got=got,
                 remedy="See the shapes in the help.")  # fmt: skip
        dtype = same_dtype(ins[:n_floats], where=cell)
        if attrs["has_lengths"] and (ins[-1].shape != (batch,) or ins[-1].dtype.kind not in "iu"):
            fail(cell, "lengths", expected=f"{batch} integers", got=ins[-1], remedy="Cast them.")
        _check_activations(cell, attrs, d)
        state = TensorSpec((d, batch, hidden), dtype)
        return (TensorSpec((steps, d, batch, hidden), dtype), *[state] * n_states)

    return infer


def _check_activations(cell: str, attrs: Attrs, n_directions: int) -> None:
    chosen = attrs["activations"]
    wanted = N_ACTIVATIONS[cell] * n_directions
    if chosen is not None and (
        len(chosen) != wanted or any(c[0] not in ACTIVATIONS for c in chosen)
    ):
        fail(cell, f"activations={chosen}", expected=f"{wanted} of {', '.join(ACTIVATIONS)}",
             got=len(chosen), remedy="Name each with its two numbers.")  # fmt: skip


def _variant(cell: str, attrs: Attrs) -> str:
    return "gru_after" if attrs.get("reset_after") else cell


def _cpu_scratch(cell: str, ins: Specs) -> Specs:
    steps, batch, hidden = ins[0].shape[0], ins[0].shape[1], ins[2].shape[2]
    dtype = ins[0].dtype
    return (
        TensorSpec((steps, batch, N_GATES[cell] * hidden), dtype),  # inputs times weights
        TensorSpec((batch, N_GATES[cell] * hidden), dtype),  # state times weights
        *[TensorSpec((batch, hidden), dtype)] * 4,
        TensorSpec((batch, 1), np.dtype("bool")),
    )


def _scratch(cell: str) -> Callable[[Specs, Specs, Attrs, str], Specs]:
    def scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
        if device_kind == "cpu":
            return _cpu_scratch(cell, ins)
        return tuple(scratch_specs(_variant(cell, attrs), ins).values())

    return scratch


def _kernel(cell: str) -> Callable[[Arrays, Arrays, Attrs, Arrays], Sequence[KernelLaunch]]:
    def kernel(ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Sequence[KernelLaunch]:
        backward = DIRECTIONS[attrs["direction"]][0]
        layer = Layer(_variant(cell, attrs), backward, _functions(cell, attrs))
        return launches(layer, ins, outs, attrs, scratch)

    return kernel


def _cost(cell: str) -> Callable[[Specs, Specs, Attrs], Cost]:
    gates = N_GATES[cell]

    def cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
        steps, batch, width, hidden, d = _sizes(ins, attrs)
        flops = 2.0 * steps * batch * gates * hidden * (width + hidden + 20) * d
        moved = float(sum(s.nbytes for s in (*ins, *outs)) + steps * d * ins[2].nbytes)
        # Each step is a product, which releases Python's lock, and some ten short calls, which
        # hold it: below about 30 us of arithmetic the lock is held for most of the time.
        return Cost(flops, moved, gil=2.0 * batch * gates * hidden * hidden < 1e6)

    return cost


# -- one step of each cell -----------------------------------------------------------------------


@dataclass
class _Direction:
    """Arrays of one direction, with everything that a step needs bound."""

    xp: Any
    attrs: Attrs
    act: list[Activation]
    recurrent: Any  # (hidden, gates * hidden)
    bias: Any  # (2, gates * hidden)
    peephole: Any
    product: Any
    spare: Sequence[Any]
    h: Any
    c: Any

    def gate(self, array: Any, k: int) -> Any:
        """Return gate `k` of an array (batch, gates * hidden)."""
        hidden = self.h.shape[-1]
        return array[..., k * hidden : (k + 1) * hidden]

    def clip(self, x: Any) -> None:
        limit = self.attrs["clip"]
        if limit is not None:
            self.xp.maximum(x, -limit, out=x)
            self.xp.minimum(x, limit, out=x)


def _step_lstm(d: _Direction, pre: Any) -> tuple[Any, Any]:
    """Take the products of an input (changed in place); return the new state and cell."""
    xp, (new_h, new_c, work, _) = d.xp, d.spare
    xp.matmul(d.h, d.recurrent, out=d.product)
    xp.add(pre, d.product, out=pre)
    gate_in, gate_out, forget, cell = (d.gate(pre, k) for k in range(4))
    f, g, h = d.act
    if d.peephole is not None:
        for gate, k in ((gate_in, 0), (forget, 2)):
            xp.multiply(d.c, d.gate(d.peephole, k), out=work)
            xp.add(gate, work, out=gate)
    for gate, act in ((gate_in, f), (forget, f), (cell, g)):
        d.clip(gate)
        act(gate)
    if d.attrs["couple_gates"]:
        xp.subtract(1, gate_in, out=forget)
    xp.multiply(forget, d.c, out=new_c)
    xp.multiply(gate_in, cell, out=work)
    xp.add(new_c, work, out=new_c)
    if d.peephole is not None:
        xp.multiply(new_c, d.gate(d.peephole, 1), out=work)
        xp.add(gate_out, work, out=gate_out)
    d.clip(gate_out)
    f(gate_out)
    xp.copyto(new_h, new_c)
    h(new_h)
    xp.multiply(new_h, gate_out, out=new_h)
    return new_h, new_c


def _step_gru(d: _Direction, pre: Any) -> tuple[Any, Any]:
    xp, (new_h, reset_h, _, _) = d.xp, d.spare
    hidden = d.h.shape[-1]
    f, g = d.act
    both, fresh = pre[:, : 2 * hidden], pre[:, 2 * hidden :]
    xp.matmul(d.h, d.recurrent[:, : 2 * hidden], out=d.product[:, : 2 * hidden])
    xp.add(both, d.product[:, : 2 * hidden], out=both)
    d.clip(both)
    f(both)
    update, reset = both[:, :hidden], both[:, hidden:]
    weights, last = d.recurrent[:, 2 * hidden :], d.product[:, 2 * hidden :]
    if d.attrs["reset_after"]:
        xp.matmul(d.h, weights, out=last)
        xp.add(last, d.gate(d.bias[1], 2), out=last)
        xp.multiply(last, reset, out=last)
    else:
        xp.multiply(reset, d.h, out=reset_h)
        xp.matmul(reset_h, weights, out=last)
    xp.add(fresh, last, out=fresh)
    d.clip(fresh)
    g(fresh)
    # h' = fresh + update * (h - fresh)
    xp.subtract(d.h, fresh, out=new_h)
    xp.multiply(new_h, update, out=new_h)
    xp.add(new_h, fresh, out=new_h)
    return new_h, None


def _step_rnn(d: _Direction, pre: Any) -> tuple[Any, Any]:
    xp, new_h = d.xp, d.spare[0]
    xp.matmul(d.h, d.recurrent, out=new_h)
    xp.add(new_h, pre, out=new_h)
    d.clip(new_h)
    d.act[0](new_h)
    return new_h, None


_STEPS = {"lstm": _step_lstm, "gru": _step_gru, "rnn": _step_rnn}


def _bind(cell: str) -> Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]:
    n_states = 2 if cell == "lstm" else 1

    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        if xp is not np:  # only in the body of a loop, where kernels are not bound
            like = [TensorSpec(array.shape, array.dtype) for array in ins[:3]]
            scratch = [xp.empty(s.shape, s.dtype) for s in _cpu_scratch(cell, tuple(like))]
        directions = [
            _bind_direction(xp, cell, k, backwards, ins, outs, attrs, scratch)
            for k, backwards in enumerate(DIRECTIONS[attrs["direction"]])
        ]

        def launch() -> None:
            for out, first in zip(outs[1:], ins[4 : 4 + n_states], strict=True):
                xp.copyto(out, first)
            for run in directions:
                run()

        return launch

    return bind


def _bind_direction(
    xp: Any, cell: str, k: int, backwards: bool, ins: Arrays, outs: Arrays, attrs: Attrs,
    scratch: Arrays,
) -> Launch:  # fmt: skip
    x, w, r, b = ins[0], ins[1][k], ins[2][k], ins[3][k]
    pre, product, *spare, mask = scratch
    steps, batch, _, hidden, _ = _sizes(ins, attrs)
    lengths = ins[-1].reshape(batch, 1) if attrs["has_lengths"] else None
    bias = b.reshape(2, N_GATES[cell] * hidden)
    d = _Direction(
        xp, attrs, _activations(xp, cell, attrs)[k], r.T, bias,
        ins[6][k] if attrs["has_peephole"] else None, product, spare,
        outs[1][k], outs[2][k] if cell == "lstm" else None,
    )  # fmt: skip
    step, rows = _STEPS[cell], outs[0][:, k]
    order = range(steps)[:: -1 if backwards else 1]

    def launch() -> None:
        xp.matmul(x, w.T, out=pre)
        _add_biases(xp, cell, attrs, pre, bias)
        for t in order:
            new_h, new_c = step(d, pre[t])
            if lengths is None:
                xp.copyto(rows[t], new_h)
                xp.copyto(d.h, new_h)
                if d.c is not None:
                    xp.copyto(d.c, new_c)
                continue
            # A sequence that has ended keeps its state and gives zeros.
            xp.less(t, lengths, out=mask)
            xp.multiply(new_h, mask, out=rows[t])
            xp.copyto(d.h, new_h, where=mask)
            if d.c is not None:
                xp.copyto(d.c, new_c, where=mask)

    return launch


def _add_biases(xp: Any, cell: str, attrs: Attrs, pre: Any, bias: Any) -> None:
    xp.add(pre, bias[0], out=pre)
    if cell == "gru" and attrs["reset_after"]:  # that of the hidden gate is reset with its product
        kept = 2 * bias.shape[1] // 3
        xp.add(pre[..., :kept], bias[1, :kept], out=pre[..., :kept])
    else:
        xp.add(pre, bias[1], out=pre)


# -- the slow ones -------------------------------------------------------------------------------


def _apply(name: str, a: Any, b: Any, x: Any) -> Any:
    out = np.array(x, np.float64)
    function, first, second = ACTIVATIONS[name]
    function(np, out, first if a is None else a, second if b is None else b)
    return out


def _reference(cell: str) -> Callable[[Arrays, Attrs], tuple[Any, ...]]:
    def reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
        n_floats = len(ins) - int(attrs["has_lengths"])
        wide = [np.asarray(v, np.float64) for v in ins[:n_floats]]
        steps, batch, _, hidden, n_directions = _sizes(wide, attrs)
        lengths = np.asarray(ins[-1]) if attrs["has_lengths"] else np.full(batch, steps)
        y = np.zeros((steps, n_directions, batch, hidden))
        last_h = np.zeros((n_directions, batch, hidden))
        last_c = np.zeros_like(last_h)
        for k, backwards in enumerate(DIRECTIONS[attrs["direction"]]):
            n = N_ACTIVATIONS[cell]
            chosen = attrs["activations"] or [(name, None, None) for name in _DEFAULTS[cell]] * 2
            act = [partial(_apply, *c) for c in chosen[k * n : (k + 1) * n]]
            for i in range(batch):
                h, c = wide[4][k, i], wide[5][k, i] if cell == "lstm" else None
                for t in range(lengths[i])[:: -1 if backwards else 1]:
                    h, c = _reference_step(cell, wide, k, wide[0][t, i], h, c, act, attrs)
                    y[t, k, i] = h
                last_h[k, i] = h
                last_c[k, i] = 0 if c is None else c
        return (y, last_h, last_c) if cell == "lstm" else (y, last_h)

    return reference


def _reference_step(
    cell: str, ins: list[Any], k: int, x: Any, h: Any, c: Any, act: Any, attrs: Attrs
) -> tuple[Any, Any]:
    n, hidden = N_GATES[cell], len(h)
    w, r = ins[1][k].reshape(n, hidden, len(x)), ins[2][k].reshape(n, hidden, hidden)
    wb, rb = ins[3][k].reshape(2, n, hidden)
    limit = np.inf if attrs["clip"] is None else attrs["clip"]
    last = act[2:]  # what follows is not the input of a gate, and not clipped
    act = [lambda v, f=f: f(np.clip(v, -limit, limit)) for f in act[:2]]
    pre = [w[g] @ x + r[g] @ h + wb[g] + rb[g] for g in range(n)]
    if cell == "rnn":
        return act[0](pre[0]), None
    if cell == "gru":
        z, reset = act[0](pre[0]), act[0](pre[1])
        if attrs["reset_after"]:
            new = w[2] @ x + reset * (r[2] @ h + rb[2]) + wb[2]
        else:
            new = w[2] @ x + r[2] @ (reset * h) + rb[2] + wb[2]
        return (1 - z) * act[1](new) + z * h, None
    p = ins[6][k].reshape(3, hidden) if attrs["has_peephole"] else np.zeros((3, hidden))
    gate_in, forget = act[0](pre[0] + p[0] * c), act[0](pre[2] + p[2] * c)
    if attrs["couple_gates"]:
        forget = 1 - gate_in
    new_c = forget * c + gate_in * act[1](pre[3])
    return act[0](pre[1] + p[1] * new_c) * last[0](new_c), new_c


# -- definitions -----------------------------------------------------------------------------------


def _inputs(cell: str, directions: int = 1, *, peephole: bool = False) -> tuple[TensorSpec, ...]:
    n, hidden, width, steps, batch = N_GATES[cell], 5, 4, 3, 2
    states = [f32(directions, batch, hidden)] * (2 if cell == "lstm" else 1)
    extra = [f32(directions, 3 * hidden)] if peephole else []
    return (f32(steps, batch, width), f32(directions, n * hidden, width),
            f32(directions, n * hidden, hidden), f32(directions, 2 * n * hidden), *states,
            *extra)  # fmt: skip


_LENGTHS = np.array([3, 1], np.int32)
_COMMON: dict[str, Any] = {
    "direction": "forward", "activations": None, "clip": None, "has_lengths": False,
    "has_peephole": False,
}  # fmt: skip


def _document(name: str, cell: str, more: str) -> str:
    n = N_GATES[cell]
    return f"""Run a {name} layer over a sequence.

        Parameters
        ----------
        x: shape (steps, batch, width)
        w, r: shapes (directions, {n} * hidden, width) and (directions, {n} * hidden, hidden)
        b: shape (directions, 2 * {n} * hidden)
            Biases of the products with the input, then those of the products with the state.
        h{", c" if cell == "lstm" else ""}: shape (directions, batch, hidden)
            First state.{more}
        lengths: shape (batch,), integers, where `has_lengths`
            Sequences that are shorter keep their state and give zeros from their end on.
        direction
            "forward", "reverse" or "bidirectional" (two directions).
        activations
            None, or for each direction {N_ACTIVATIONS[cell]} times (name, alpha, beta).
        clip
            Bound on what goes into an activation.

        Returns
        -------
        States of all steps, shape (steps, directions, batch, hidden), and the last state{
        " and cell" if cell == "lstm" else ""
    }.
        """


def _define(cell: str, name: str, more: str, attrs: Attrs, cases: tuple[OpCase, ...]) -> Op:
    return Op(
        name=cell, kind=name, doc=_document(name, cell, more), n_inputs=(5, 8),
        attrs={**_COMMON, **attrs}, infer=_infer(cell), bind=_bind(cell), kernel=_kernel(cell),
        reference=_reference(cell), scratch=_scratch(cell), cost=_cost(cell), dtypes=FLOATS,
        cases=(
            OpCase("forward", _inputs(cell), rtol=1e-4, atol=1e-5),
            OpCase("both_ways", _inputs(cell, 2), {"direction": "bidirectional"}, rtol=1e-4,
                   atol=1e-5),
            OpCase("lengths", (*_inputs(cell, 1), _LENGTHS),
                   {"direction": "reverse", "has_lengths": True}, rtol=1e-4, atol=1e-5),
            *cases,
        ),
    )  # fmt: skip


_PEEPHOLE = """
        p: shape (directions, 3 * hidden), where `has_peephole`
            Weights of the cell in the input, output and forget gate."""

OPS = (
    _define(
        "lstm", "LSTM", _PEEPHOLE, {"couple_gates": False},
        (
            OpCase("peephole", _inputs("lstm", peephole=True), {"has_peephole": True},
                   rtol=1e-4, atol=1e-5),
            OpCase("coupled", _inputs("lstm"), {"couple_gates": True}, rtol=1e-4, atol=1e-5),
            OpCase("clipped", _inputs("lstm", peephole=True), {"has_peephole": True, "clip": 0.5},
                   rtol=1e-4, atol=1e-5),
            OpCase("large", (f32(20, 1, 64), f32(1, 256, 64), f32(1, 256, 64), f32(1, 512),
                             f32(1, 1, 64), f32(1, 1, 64)), rtol=1e-3, atol=1e-3, perf=True),
        ),
    ),
    _define(
        "gru", "GRU", "", {"reset_after": False},
        (OpCase("reset_after", _inputs("gru"), {"reset_after": True}, rtol=1e-4, atol=1e-5),),
    ),
    _define(
        "rnn", "RNN", "", {},
        (OpCase("relu", _inputs("rnn"), {"activations": (("relu", None, None),)}, rtol=1e-4,
                atol=1e-4),),
    ),
)  # fmt: skip
