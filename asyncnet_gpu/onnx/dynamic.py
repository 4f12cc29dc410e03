"""Models whose shapes are not all known: one plan per signature, in a bounded cache.

A signature is the shape of every free input, and the value of every input on which shapes depend
(the shape given to a Reshape, the rate that chooses a branch). Which inputs those are is found out
by the importer: it asks for a value where it needs one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
from onnx import ModelProto

from asyncnet_gpu.onnx.context import NeedsValue
from asyncnet_gpu.onnx.dims import (
    Extents,
    check_extents,
    check_shared,
    describe_input,
    shared_names,
)
from asyncnet_gpu.onnx.executable import OnnxExecutable
from asyncnet_gpu.onnx.external import ExternalData
from asyncnet_gpu.onnx.limits import Limits
from asyncnet_gpu.onnx.model import import_model, model_inputs, model_leaves
from asyncnet_gpu.onnx.ports import Layout
from asyncnet_gpu.onnx.stages import Source, is_divisible

if TYPE_CHECKING:
    from asyncnet_gpu.net import AsyncNet

Array = np.ndarray[Any, Any]

#: Plans that an executable keeps unless told otherwise.
DEFAULT_PLANS = 8


@final
class OnnxNet:
    """A model with free dimensions: compiles like an `AsyncNet`, binds when it runs.

    Attributes
    ----------
    name
        Of the graph.
    inputs
        Name of each input to its dtype and extents; an extent that is no integer is free, and
        extents of None mean that even their number is.
    outputs
        Names of the outputs.
    """

    def __init__(
        self, model: ModelProto, external: ExternalData, shapes: Mapping[str, Sequence[int]],
        values: Mapping[str, Array], limits: Limits, layout: Mapping[str, Layout] | None = None,
    ) -> None:  # fmt: skip
        self._model = model
        self._layout = dict(layout or {})
        self._external = external
        self._limits = limits
        self._values = dict(values)
        self.name: str = model.graph.name
        leaves = model_leaves(model, self._layout)
        parts = [leaf for leaf in leaves if leaf.name not in values]
        self.inputs = {leaf.name: describe_input(leaf, shapes.get(leaf.name)) for leaf in parts}
        # Elements of a sequence have the type of the sequence, but need not have the same extents.
        plain = {entry.name for entry in model_inputs(model)}
        declared = {leaf.name: describe_input(leaf, None)[1] for leaf in leaves}
        self._shared = shared_names({n: e for n, e in declared.items() if n in plain})
        self._fixed_shapes = {name: value.shape for name, value in self._values.items()}
        check_shared("load_onnx", self._shared, {**self._fixed_shapes, **shapes})
        self.outputs = tuple(entry.name for entry in model.graph.output)
        #: Inputs whose value is part of the signature; grows as the importer asks.
        self.bound: set[str] = {leaf.name for leaf in parts if leaf.is_text}
        #: Inputs of strings, which are bound as what `ports.text_bytes` makes of them.
        self.texts = frozenset(self.bound)

    @property
    def is_static(self) -> bool:
        """Whether every extent is known."""
        return all(
            extents is not None and all(isinstance(e, int) for e in extents)
            for _, extents in self.inputs.values()
        )

    def bind(
        self, shapes: Mapping[str, Sequence[int]], values: Mapping[str, Array] | None = None
    ) -> AsyncNet:
        """Return the net for given shapes.

        Parameters
        ----------
        shapes
            Of every input, but those in `values`.
        values
            Inputs that become constants of the net.

        Raises
        ------
        OnnxImportError
            If the model does not take these shapes. Of kind `NeedsValue` when shapes depend on
            values that are not given.
        ShapeError
            If they contradict the file, or one another in a named dimension.
        """
        self.check_shapes({**shapes, **{n: v.shape for n, v in (values or {}).items()}})
        return import_model(
            self._model, self._external, shapes, {**self._values, **(values or {})}, self._limits,
            self._layout,
        )  # fmt: skip

    def check_shapes(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raise `ShapeError` when shapes of inputs contradict the file or one another."""
        for name, shape in shapes.items():
            check_extents(name, self.inputs[name][1], tuple(shape))
        check_shared(f"net {self.name!r}", self._shared, {**self._fixed_shapes, **shapes})

    def bind_value(self, needed: NeedsValue) -> None:
        """Make the inputs that the importer asked for part of the signature."""
        new = needed.inputs - self.bound
        if not new:
            raise needed
        self.bound |= new

    def static_net(self) -> AsyncNet:
        """Return the net of a model without free dimensions."""
        return self.bind({n: _ints(extents) for n, (_, extents) in self.inputs.items()})

    def source(self, options: Mapping[str, Any]) -> Source:
        """Return what the parts of the model have in common when it runs in stages."""
        return Source(self._model, self._external, self._limits, self._values, options)

    def runs_in_stages(self, needed: NeedsValue, given: Mapping[str, Array] | None = None) -> bool:
        """Whether the model is cut in front of a node, since no input can be bound for it.

        Parameters
        ----------
        given
            Inputs of a run; None where every extent is known.
        """
        position = needed.position
        if position is None or self._layout or not is_divisible(self._model, position):
            return False
        new = needed.inputs - self.bound
        nbytes = [
            given[name].nbytes if given is not None else math.prod(_ints(extents)) * dtype.itemsize
            for name, (dtype, extents) in self.inputs.items()
            if name in new
        ]
        return not new or sum(nbytes) > self._limits.max_bound_bytes

    def compile(self, *, max_plans: int = DEFAULT_PLANS, **options: Any) -> OnnxExecutable:
        """Return an executable that plans for the first run of each signature.

        Parameters
        ----------
        max_plans
            Plans kept at a time; the one unused for longest goes first.
        options
            As for `asyncnet_gpu.compile`.
        """
        return OnnxExecutable(self, max_plans, options)

    @property
    def limits(self) -> Limits:
        """Caps under which the model is loaded."""
        return self._limits

    def __repr__(self) -> str:
        return f"<OnnxNet {self.name!r}: {len(self.inputs)} inputs, {len(self.outputs)} outputs>"


def _ints(extents: Extents | None) -> tuple[int, ...]:
    return tuple([e for e in extents or () if isinstance(e, int)])
