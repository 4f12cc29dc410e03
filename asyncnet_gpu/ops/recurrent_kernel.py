"""Launches of ``recurrent.cu``: one product for all inputs, then one or two launches for each step.

A step is one launch that makes its products itself, or a product and a launch for the gates; a GRU
that resets the state before its product has two of these. Which way: `makes_products`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import Arrays, Attrs, KernelLaunch, Specs
from asyncnet_gpu.ops.cell_activations import ACTIVATIONS
from asyncnet_gpu.ops.matmul import flat_product, product_launch
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, THREADS, copy_launches, grid_for
from asyncnet_gpu.specs import TensorSpec

#: Sequences that a warp multiplies at a time with the weights that it has read.
TILE = 4
#: Bytes of weights that may be read again from cache to save the launch of a product: what the L2
#: cache of a large device delivers in about the time of a launch (docs/decisions/0110).
REREAD = 4 << 20
_LARGEST_GRID = 65535
_WARP = 32
_UNITS = 4  # of a block

#: The struct `RecurrentStep` of ``recurrent.cu``: strides in elements.
RECURRENT_STEP = np.dtype(
    [(name, np.int64) for name in ("steps", "batch", "hidden", "gates", "index")]
    + [("weight", np.int64, (3,)), ("bias", np.int64, (2,)), ("peephole", np.int64, (2,))]
    + [(name, np.int64, (3,)) for name in ("factor", "state", "cell")]
    + [("length", np.int64), ("clip", np.float64)]
    + [(name, np.float64, (2, 3)) for name in ("alpha", "beta")]
    + [("function", np.int32, (2, 3))]
    + [(name, np.int32) for name in ("backward", "length_bytes", "has_peephole", "couple_gates")],
    align=True,
)

#: For each cell the kernel's structs of a step's launches: name, first gate, number of gates.
PHASES = {
    "lstm": (("Lstm", 0, 4),),
    "gru": (("GruGates", 0, 2), ("GruHidden", 2, 1)),
    "gru_after": (("GruAfter", 0, 3),),
    "rnn": (("Rnn", 0, 1),),
}

_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}


@dataclass(frozen=True, slots=True)
class Layer:
    """What the launches need to know beside the arrays.

    Attributes
    ----------
    cell
        Key of `PHASES`.
    backward
        Whether the first direction begins at the end.
    functions
        For each direction name, alpha and beta of each activation.
    """

    cell: str
    backward: bool
    functions: Sequence[Sequence[tuple[str, float, float]]]


def makes_products(r: TensorSpec, batch: int) -> bool:
    """Whether the launch of a step reads the weights itself, once for each tile of sequences."""
    return (-(-batch // TILE) - 1) * r.nbytes <= REREAD


def scratch_specs(cell: str, ins: Specs) -> dict[str, TensorSpec]:
    """Return the temporaries by name; see ``recurrent.cu``."""
    x, r = ins[0], ins[2]
    (steps, batch, _), (directions, rows, hidden) = x.shape, r.shape
    state = TensorSpec((directions, batch, hidden), x.dtype)
    found = {"pre": TensorSpec((directions, steps, batch, rows), x.dtype)}
    two = len(PHASES[cell]) > 1
    if two:
        found |= {"reset": state, "update": state}
    if not makes_products(r, batch):
        most = max(n for _, _, n in PHASES[cell])
        found["products"] = TensorSpec((directions, batch, most * hidden), x.dtype)
    elif not two:
        found["other"] = state  # the state before a step, when its own place is written
    return found


def launches(
    layer: Layer, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch]:
    """Return all launches of a layer; none where nothing has an element."""
    if not outs[1].size:
        return ()
    n_states = len(outs) - 1
    if not outs[0].size:  # no step
        return copy_launches([(ins[4 + i], outs[1 + i]) for i in range(n_states)]) or ()
    names = scratch_specs(layer.cell, tuple([TensorSpec(a.shape, a.dtype) for a in ins[:3]]))
    work = dict(zip(names, scratch, strict=True))
    steps = _Steps(layer, ins, outs, attrs, work)
    made = _input_products(ins[0], ins[1], work["pre"])
    for index in range(ins[0].shape[0]):
        made += steps.launches(index)
    return made


def _input_products(x: Any, w: Any, pre: Any) -> list[KernelLaunch]:
    if x.flags.c_contiguous:  # all steps as one matrix, and the directions as a batch
        rows = x.reshape(1, x.shape[0] * x.shape[1], x.shape[2])
        flat = pre.reshape(pre.shape[0], rows.shape[1], pre.shape[3])
        return [_product(rows, w.transpose(0, 2, 1), flat)]
    return [_product(x, w[d].T, pre[d]) for d in range(len(w))]


def _product(a: Any, b: Any, out: Any) -> KernelLaunch:
    launch = product_launch(*flat_product(a, b, out))
    assert launch is not None, "at most one batch axis"
    return launch


def _strides(array: Any) -> list[int]:
    return [stride // array.dtype.itemsize for stride in array.strides]


class _Steps:
    """Makes the launches of one step after the other."""

    def __init__(
        self, layer: Layer, ins: Arrays, outs: Arrays, attrs: Attrs, work: dict[str, Any]
    ) -> None:
        self.layer, self.work = layer, work
        self.r, self.b = ins[2], ins[3]
        self.y, self.last = outs[0], outs[1:]
        self.first = ins[4 : 4 + len(self.last)]
        self.peephole = ins[6] if attrs["has_peephole"] else None
        self.lengths = ins[-1] if attrs["has_lengths"] else None
        self.fused = "products" not in work
        self.layout = self._layout(attrs)

    def _layout(self, attrs: Attrs) -> Any:
        layout = np.zeros((), RECURRENT_STEP)
        layout["steps"], _, layout["batch"], layout["hidden"] = self.y.shape
        layout["gates"] = self.r.shape[1] // self.r.shape[2]
        layout["bias"] = _strides(self.b)
        layout["clip"] = np.inf if attrs["clip"] is None else attrs["clip"]
        layout["backward"] = self.layer.backward
        layout["couple_gates"] = bool(attrs.get("couple_gates"))
        if self.peephole is not None:
            layout["has_peephole"], layout["peephole"] = 1, _strides(self.peephole)
        if self.lengths is not None:
            (layout["length"],) = _strides(self.lengths)
            sign = -1 if self.lengths.dtype.kind == "i" else 1
            layout["length_bytes"] = sign * self.lengths.dtype.itemsize
        for d, functions in enumerate(self.layer.functions):
            for i, (name, alpha, beta) in enumerate(functions):
                layout["function"][d, i] = _CODES[name]
                layout["alpha"][d, i], layout["beta"][d, i] = alpha, beta
        return layout

    def launches(self, index: int) -> list[KernelLaunch]:
        """Return the launches of a step: the first one reads the first state, and so on."""
        h, c = self._before(index), (self.last if index else self.first)[-1]
        new_h = self._place(index)
        made = []
        for kind, gate, n_gates in PHASES[self.layer.cell]:
            factor, cell, new_state, new_cell = h, c, new_h, self.last[-1]
            if kind == "GruGates":
                new_state, new_cell = self.work["reset"], self.work["update"]
            elif kind == "GruHidden":
                factor, cell = self.work["reset"], self.work["update"]
            hidden = self.r.shape[2]
            weights = self.r[:, gate * hidden : (gate + n_gates) * hidden]
            arrays = (h, cell, self.y, new_state, new_cell)
            made += self._phase(index, kind, weights, factor, arrays)
        return made

    def _place(self, index: int) -> Any:
        """Return where a step leaves the state; the last one in its output."""
        left = self.y.shape[0] - 1 - index
        return self.work["other"] if "other" in self.work and left % 2 else self.last[0]

    def _before(self, index: int) -> Any:
        return self._place(index - 1) if index else self.first[0]

    def _phase(
        self, index: int, kind: str, weights: Any, factor: Any, arrays: tuple[Any, ...]
    ) -> list[KernelLaunch]:
        directions, rows, hidden = weights.shape
        batch = factor.shape[1]
        layout = self.layout.copy()
        layout["index"] = index
        layout["weight"], layout["factor"] = _strides(weights), _strides(factor)
        layout["state"], layout["cell"] = _strides(arrays[0]), _strides(arrays[1])
        pre = self.work["pre"]
        read = (self.b, *(pre if x is None else x for x in (self.peephole, self.lengths)))
        number = CUDA_NUMBERS[self.y.dtype.name]
        if self.fused:
            tile = 1 if batch == 1 else TILE
            grid = (-(-hidden // _UNITS), min(-(-batch // tile), _LARGEST_GRID), directions)
            entry, block = f"recurrent_step<{number}, {kind}, {tile}>", (_WARP, _UNITS, 1)
            args = (pre, weights, *read, factor, *arrays, layout)
            return [KernelLaunch("recurrent.cu", entry, grid, block, args)]
        n = directions * batch * rows
        products = self.work["products"].reshape(-1)[:n].reshape(directions, batch, rows)
        grid = (grid_for(batch * hidden)[0], 1, directions)
        entry = f"recurrent_gates<{number}, {kind}>"
        args = (pre, products, *read, *arrays, layout)
        gates = KernelLaunch("recurrent.cu", entry, grid, (THREADS, 1, 1), args)
        return [_product(factor, weights.transpose(0, 2, 1), products), gates]
