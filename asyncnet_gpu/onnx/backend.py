"""The `onnx.backend.base.Backend` interface: ONNX's own test suite, and other tools, call it.

>>> import asyncnet_gpu.onnx.backend as backend
>>> backend.supports_device("CPU")
True
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto
from onnx.backend.base import Backend, BackendRep, namedtupledict

from asyncnet_gpu import backends
from asyncnet_gpu.api import to_numpy
from asyncnet_gpu.errors import DeviceError, NetError, PlanError, message
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx import load_onnx

_BACKENDS = {"CPU": "cpu", "CUDA": "cuda"}


@final
class AsyncNetRep(BackendRep):  # type: ignore[misc]
    """A model that is ready to run."""

    def __init__(self, model: ModelProto, options: dict[str, Any]) -> None:
        self._net = load_onnx(model)
        self._outputs = tuple(entry.name for entry in model.graph.output)
        sources = (
            [s.name for s in self._net.sources if s.kind == "input"]
            if isinstance(self._net, AsyncNet)
            else [*self._net.inputs]
        )
        self._inputs = tuple(sources)
        self._exe = self._net.compile(**options)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run once.

        Parameters
        ----------
        inputs
            Arrays in the order of the graph's inputs, or a mapping by name.

        Returns
        -------
        The outputs in their order, also by name: a named tuple.
        """
        if not hasattr(inputs, "keys"):
            if len(inputs) > len(self._inputs):
                raise NetError(
                    message("run", "inputs", expected=len(self._inputs), got=len(inputs),
                            remedy="Give the graph's inputs without initializers.")
                )  # fmt: skip
            inputs = dict(zip(self._inputs, inputs, strict=False))
        arrays = {name: _given(value) for name, value in inputs.items()}
        outputs = self._exe.run(arrays)
        values = [_returned(outputs[name]) for name in self._outputs]
        made: tuple[Any, ...] = namedtupledict("Outputs", list(self._outputs))(*values)
        return made

    def close(self) -> None:
        """Free the executable."""
        self._exe.close()

    def __del__(self) -> None:
        # The interface has no end of life: a suite of thousands of models relies on this.
        if hasattr(self, "_exe"):
            self._exe.close()


def _given(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else np.asarray(value)


def _returned(value: Any) -> Any:
    if isinstance(value, list):
        return [_returned(part) for part in value]
    # Strings and narrow numbers are arrays of the host already.
    return value if value is None or isinstance(value, np.ndarray) else to_numpy(value)


class AsyncNetBackend(Backend):  # type: ignore[misc]
    """Loads and runs models; options of `asyncnet_gpu.compile` can be set on the class."""

    options: dict[str, Any] = {"mode": "serial"}  # noqa: RUF012 - the interface wants a class

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the interface can try the model; `prepare` says whether it works."""
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> AsyncNetRep:
        """Load a model for a device ("CPU" or "CUDA")."""
        return AsyncNetRep(model, {**cls.options, "backend": _BACKENDS[device.split(":")[0]]})

    @classmethod
    def run_model(
        cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Load and run a model once."""
        rep = cls.prepare(model, device, **kwargs)
        try:
            return rep.run(inputs)
        finally:
            rep.close()

    @classmethod
    def run_node(
        cls, node: NodeProto, inputs: Sequence[Any], device: str = "CPU",
        outputs_info: Any = None, **kwargs: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Run a single node, as a model of its own.

        Parameters
        ----------
        inputs
            For each input that the node names: an array, or a list of them for a sequence.
        opset_version
            Of the node's domain; the newest unless given.
        """
        given = [n for n in node.input if n]
        values = {n: _given(v) for n, v in zip(given, inputs, strict=True)}
        helper = onnx.helper
        version = kwargs.get("opset_version") or _newest(node.domain)
        opsets = [helper.make_opsetid(node.domain, version)]
        types = {name: _type_of(value) for name, value in values.items()}
        made = _output_types(node, types, opsets)
        graph = helper.make_graph(
            [node], node.op_type, [helper.make_value_info(n, t) for n, t in types.items()],
            [helper.make_value_info(n, made.get(n, onnx.TypeProto())) for n in node.output if n],
        )  # fmt: skip
        return cls.run_model(helper.make_model(graph, opset_imports=opsets), values, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether a kind of device answers here."""
        return _answers(_BACKENDS.get(device.split(":")[0]))


def _newest(domain: str) -> int:
    schemas = onnx.defs.get_all_schemas_with_history()
    return max([s.since_version for s in schemas if s.domain == domain], default=1)


def _type_of(value: Any) -> onnx.TypeProto:
    """Return the type of a value; of the elements of an empty list none is known."""
    helper = onnx.helper
    if isinstance(value, list):
        element = _type_of(value[0]) if value else helper.make_tensor_type_proto(1, None)
        element.tensor_type.ClearField("shape")
        return helper.make_sequence_type_proto(element)
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _output_types(
    node: NodeProto, types: dict[str, onnx.TypeProto], opsets: Sequence[Any]
) -> dict[str, onnx.TypeProto]:
    """Return the types of a node's outputs as ONNX infers them, as far as it does."""
    version = opsets[0].version
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        made: dict[str, onnx.TypeProto] = onnx.shape_inference.infer_node_outputs(
            schema, node, types, opset_imports=list(opsets)
        )
    except (
        onnx.defs.SchemaError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError,
    ):  # fmt: skip
        return {}  # the importer says what is wrong with the node
    return made


@cache
def _answers(name: str | None) -> bool:
    """Whether a backend is there; asked once, since a suite asks for each of its tests."""
    if name is None:
        return False
    try:
        return backends.load(name).n_devices() != 0
    except (DeviceError, PlanError):
        return False


prepare = AsyncNetBackend.prepare
run_model = AsyncNetBackend.run_model
run_node = AsyncNetBackend.run_node
supports_device = AsyncNetBackend.supports_device
is_compatible = AsyncNetBackend.is_compatible
