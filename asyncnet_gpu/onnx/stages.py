"""Models in which shapes depend on what a run computes: one net up to there, one from there on.

A plan is static. Where a node needs a value that no caller can give, the model is cut in front of
it: the first part runs, and what it computed are inputs of the second part, whose plans go by
their shapes or, where that is asked for, by their values. Nodes that are nothing but such a
question (which elements are not zero, which boxes remain) are answered on the host, so that only
the number of answers is part of a signature. The second part may be cut again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper

from asyncnet_gpu.api import to_numpy
from asyncnet_gpu.engine import closed_error
from asyncnet_gpu.forking import now_and_after_fork
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx.external import ExternalData
from asyncnet_gpu.onnx.importer import Importer, Scope, names_read
from asyncnet_gpu.onnx.limits import Budget, Limits
from asyncnet_gpu.onnx.reader import opsets_of, plain_domain
from asyncnet_gpu.onnx.tensors import ELEMENT_TYPES

if TYPE_CHECKING:
    from asyncnet_gpu.onnx.executable import OnnxExecutable
    from asyncnet_gpu.onnx.host_runs import Progress

Array = np.ndarray[Any, Any]

#: Nodes whose results have a shape that depends on data and are computed from arrays at once.
ON_THE_HOST = frozenset({"NonMaxSuppression", "NonZero", "Unique"})


@dataclass(frozen=True, slots=True)
class Source:
    """What the parts of a model have in common.

    Attributes
    ----------
    model
        The whole of it.
    values
        Inputs that are fixed.
    options
        Of compilation.
    """

    model: ModelProto
    external: ExternalData
    limits: Limits
    values: Mapping[str, Array]
    options: Mapping[str, Any]


def is_divisible(model: ModelProto, position: int) -> bool:
    """Whether a cut in front of a node leaves something behind it that is less than the whole."""
    return position > 0 or _is_question(model.graph.node[position])


def _is_question(node: NodeProto) -> bool:
    return plain_domain(node.domain) == "" and node.op_type in ON_THE_HOST


@final
class Stages:
    """A model cut in front of a node. Safe to use from several threads.

    Parameters
    ----------
    position
        Of the node in the model's graph.
    """

    def __init__(self, source: Source, position: int) -> None:
        nodes = list(source.model.graph.node)
        self._source = source
        self._question = nodes[position] if _is_question(nodes[position]) else None
        before, self._behind = nodes[:position], nodes[position + (self._question is not None) :]
        made = {name for node in before for name in node.output if name}
        wanted = {name for node in nodes[position:] for name in names_read(node)}
        wanted |= {entry.name for entry in source.model.graph.output}
        #: What the first part computes for the second.
        self._between = sorted(made & wanted)
        self._first = self._part(before, self._between, None) if self._between else None
        self._second: OnnxExecutable | None = None
        self._closed = False
        now_and_after_fork(self, Stages._make_lock)

    def _make_lock(self) -> None:
        self._lock = threading.Lock()

    @property
    def parts(self) -> tuple[OnnxExecutable, ...]:
        """The executables that are known so far, in the order in which they run."""
        first = () if self._first is None else (self._first,)
        return first + (() if self._second is None else self._second.stages)

    def run(
        self, given: Mapping[str, Any], timeout_s: float | None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Run all parts one after the other.

        Parameters
        ----------
        timeout_s
            That of each part.
        progress
            Through which others can cancel what is under way, and see where it is.
        """
        values = {**self._source.values, **given}
        if self._first is not None:
            values.update(self._run(self._first, values, timeout_s, progress))
        if self._question is not None:
            if progress is not None:
                progress.enter(f"{self._question.op_type} on the host")
            values.update(self._answer(self._question, values))
        if self._behind:
            values.update(self._run(self._rest(values), values, timeout_s, progress))
        names = [entry.name for entry in self._source.model.graph.output]
        return {n: values[n] if n in values else self._constant(n) for n in names}

    def _constant(self, name: str) -> Array:
        """Return an initializer that is an output."""
        scope, importer = self._on_the_host(())
        scope.unread.update({t.name: t for t in self._source.model.graph.initializer})
        return np.asarray(scope.find(name, importer))

    @staticmethod
    def _run(
        exe: OnnxExecutable, values: Mapping[str, Any], timeout_s: float | None,
        progress: Progress | None,
    ) -> dict[str, Any]:  # fmt: skip
        if progress is not None:
            progress.enter(f"the stage that makes {', '.join(exe.outputs[:3]) or 'nothing'}")
        return exe.carry_out({name: values[name] for name in exe.inputs}, timeout_s, progress)

    def _answer(self, node: NodeProto, values: Mapping[str, Any]) -> dict[str, Array]:
        """Compute a node on the host."""
        scope, importer = self._on_the_host([node])
        scope.values.update({n: to_numpy(values[n]) for n in node.input if n in values})
        importer.node(node, scope)
        return {name: np.asarray(scope.values[name]) for name in node.output if name}

    def _on_the_host(self, nodes: Sequence[NodeProto]) -> tuple[Scope, Importer]:
        """Return where nodes are computed from arrays, with the initializers that they read."""
        source = self._source
        importer = Importer(AsyncNet("host"), Budget(source.limits), source.external, {})
        scope = Scope(None, opsets_of(source.model.opset_import), 0)
        scope.unread.update(_initializers(source.model.graph, nodes))
        return scope, importer

    def _rest(self, values: Mapping[str, Any]) -> OnnxExecutable:
        """Return the second part; the types of its inputs are those that came out of the first."""
        produced = {name for node in self._behind for name in node.output}
        outputs = [e.name for e in self._source.model.graph.output if e.name in produced]
        with self._lock:  # several runs may come here first
            if self._closed:
                raise closed_error()
            if self._second is None:
                self._second = self._part(self._behind, outputs, values)
            return self._second

    def _part(
        self, nodes: Sequence[NodeProto], outputs: Iterable[str],
        values: Mapping[str, Any] | None,
    ) -> OnnxExecutable:  # fmt: skip
        """Return the executable of some nodes."""
        from asyncnet_gpu.onnx.dynamic import OnnxNet

        source, graph = self._source, GraphProto()
        graph.name = source.model.graph.name
        graph.node.extend(nodes)
        entries = {entry.name: entry for entry in source.model.graph.output}
        for name in outputs:
            graph.output.append(entries.get(name) or helper.make_empty_tensor_value_info(name))
        tensors = _initializers(source.model.graph, nodes)
        graph.initializer.extend(t for t in tensors.values() if hasattr(t, "data_type"))
        graph.sparse_initializer.extend(t for t in tensors.values() if not hasattr(t, "data_type"))
        read = {name for node in nodes for name in names_read(node)} - tensors.keys()
        given = {entry.name for entry in source.model.graph.input}
        graph.input.extend(e for e in source.model.graph.input if e.name in read)
        for name in sorted(read - given):
            if values is not None and name in values:
                element = ELEMENT_TYPES[np.dtype(values[name].dtype)]
                graph.input.append(helper.make_tensor_value_info(name, element, None))
        model = ModelProto()
        model.CopyFrom(_shell(source.model))
        model.graph.CopyFrom(graph)
        fixed = {n: v for n, v in source.values.items() if n in read}
        net = OnnxNet(model, source.external, {}, fixed, source.limits)
        return net.compile(**source.options)

    def close(self) -> None:
        """Free every plan."""
        with self._lock:
            self._closed = True
        for exe in (self._first, self._second):
            if exe is not None:
                exe.close()


def _shell(model: ModelProto) -> ModelProto:
    """Return a model without its graph."""
    made = ModelProto(ir_version=model.ir_version)
    made.opset_import.extend(model.opset_import)
    made.functions.extend(model.functions)
    return made


def _initializers(graph: GraphProto, nodes: Iterable[NodeProto]) -> dict[str, Any]:
    """Return the initializers that some nodes read."""
    read = {name for node in nodes for name in names_read(node)}
    found: dict[str, Any] = {t.name: t for t in graph.initializer if t.name in read}
    found.update({s.values.name: s for s in graph.sparse_initializer if s.values.name in read})
    return found
