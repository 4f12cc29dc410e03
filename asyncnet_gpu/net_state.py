"""What a net has noted so far, and the checks that every addition passes.

`NetState` is the lower half of `AsyncNet`: names, specs and definitions.
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numpy as np

from asyncnet_gpu.barrier import AsyncNetBarrier
from asyncnet_gpu.blob import Blob
from asyncnet_gpu.errors import NetError, ShapeError, message
from asyncnet_gpu.ops.base import REQUIRED
from asyncnet_gpu.specs import DTYPES, TensorSpec, spec

if TYPE_CHECKING:
    from asyncnet_gpu.net import AsyncNet
    from asyncnet_gpu.ops.base import Attrs, Op

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep

P = ParamSpec("P")
T = TypeVar("T")

After = Sequence["Blob | AsyncNetBarrier | str"]


@dataclass(frozen=True, slots=True)
class SourceDef:
    """A blob that no operator makes: kind is input, parameter, state or constant."""

    name: str
    spec: TensorSpec
    kind: str
    device: int
    value: np.ndarray[Any, Any] | None
    line: str


@dataclass(frozen=True, slots=True)
class NodeDef:
    """An operator's use as written: blob and node names, not yet resolved."""

    name: str
    op: Op
    attrs: Attrs
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    device: int
    after: tuple[str, ...]
    line: str


def user_line() -> str:
    """Return ``file:line`` of the nearest frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def names_line(method: Callable[P, T]) -> Callable[P, T]:
    """Let the errors of a method of the net name the line of user code that called it."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (NetError, ShapeError) as error:
            line = user_line()
            if line not in str(error):
                error.args = (f"{error} At {line}.",)
            raise

    return call


class NetState:
    """Names, specs and definitions of a net under construction."""

    def __init__(self, name: str = "net") -> None:
        self.name = name
        self.definitions: list[NodeDef] = []
        self.outputs: dict[str, str] = {}
        self._sources: dict[str, SourceDef] = {}
        self._specs: dict[str, TensorSpec] = {}
        self._devices: dict[str, int] = {}
        self._node_names: dict[str, str] = {}  # node name -> line
        self._last_writer: dict[str, str] = {}  # blob name -> node name
        self._counts: dict[str, int] = {}
        self._device = 0

    @names_line
    def constant(self, value: object, *, dtype: object = None, name: str | None = None) -> Blob:
        """Declare a value that never changes; operators on constants run once, when compiling."""
        name = self._auto_name("constant") if name is None else name
        array = self._array(name, value, dtype)
        return self._source(name, TensorSpec(array.shape, array.dtype), "constant", array)

    @names_line
    def blob(self, name: str) -> Blob:
        """Return the handle of a blob by name."""
        if name not in self._specs:
            raise self._unknown(name, "blob", self._specs)
        return Blob(cast("AsyncNet", self), name, self._specs[name])

    def has_blob(self, name: str) -> bool:
        """Whether a blob of this name is defined."""
        return name in self._specs

    def spec_of(self, name: str) -> TensorSpec:
        """Return shape and dtype of a blob by name."""
        return self._specs[name]

    # -- checks ----------------------------------------------------------------------------

    def _array(self, name: str, value: object, dtype: object = None) -> np.ndarray[Any, Any]:
        if hasattr(value, "get") and hasattr(value, "__cuda_array_interface__"):
            value = value.get()
        array = np.array(value, dtype=dtype, order="C")  # type: ignore[call-overload]
        if array.dtype.name not in DTYPES:
            spec(array.shape, array.dtype, where=f"parameter {name!r}")
        return array  # type: ignore[no-any-return]

    def _source(
        self, name: str, blob_spec: TensorSpec, kind: str, value: np.ndarray[Any, Any] | None
    ) -> Blob:
        self._claim_blob(name)
        line = user_line()
        self._sources[name] = SourceDef(name, blob_spec, kind, self._device, value, line)
        self._specs[name] = blob_spec
        self._devices[name] = self._device
        return Blob(cast("AsyncNet", self), name, blob_spec)

    def _claim_blob(self, name: str) -> None:
        self._check_name(name)
        if name in self._specs:
            raise NetError(
                message(
                    "net", f"the name {name!r} is taken", expected="a new name",
                    got=f"a second {name!r} at {user_line()}", remedy="Give another name=.",
                )
            )  # fmt: skip

    def _check_name(self, name: object) -> None:
        if not isinstance(name, str) or not name:
            raise NetError(
                message("net", f"bad name {name!r}", expected="a non-empty string",
                        got=type(name).__name__, remedy="Give another name=.")
            )  # fmt: skip

    def _auto_name(self, stem: str) -> str:
        while True:
            count = self._counts[stem] = self._counts.get(stem, 0) + 1
            name = f"{stem}_{count}"
            if name not in self._specs and name not in self._node_names:
                return name

    def _node_name(self, op: Op, name: str | None) -> str:
        if name is None:
            return self._auto_name(op.name)
        self._check_name(name)
        if name in self._node_names:
            raise NetError(
                message(
                    "net", f"the node name {name!r} is taken",
                    expected=f"a new name (first used at {self._node_names[name]})",
                    got=f"a second {name!r} at {user_line()}", remedy="Give another name=.",
                )
            )  # fmt: skip
        return name

    def _first_name(self, name: str | Sequence[str] | None) -> str | None:
        """Return the name of the node: the one that is given, or the first of its outputs'."""
        if name is None or isinstance(name, str):
            return name
        return next(iter(name), "")

    def _output_names(
        self, node: str, name: str | Sequence[str] | None, count: int
    ) -> tuple[str, ...]:
        if name is not None and not isinstance(name, str):
            names = tuple(name)
            if len(names) != count:
                raise NetError(
                    message("net", f"names for node {node!r}", expected=f"{count} names",
                            got=len(names), remedy="Give one name for each output.")
                )  # fmt: skip
        else:
            names = (node,) if count == 1 else tuple(f"{node}.{i}" for i in range(count))
        for out in names:
            self._claim_blob(out)
        return names

    def _own(self, blob: object, where: str, *, attributes: tuple[str, ...] = ()) -> Blob:
        if isinstance(blob, str):
            return self.blob(blob)
        if not isinstance(blob, Blob) or blob.net is not self:
            remedy = "Pass what net.input, net.parameter or an operator returned"
            if attributes and not isinstance(blob, Blob):
                names = ", ".join(f"{name}=..." for name in attributes)
                remedy += f"; attributes go by name: {names}"
            raise NetError(
                message(
                    f"net.{where}", "not a blob of this net",
                    expected=f"a blob of net {self.name!r}", got=repr(blob), remedy=f"{remedy}.",
                )
            )  # fmt: skip
        return blob

    def _operands(self, op: Op, operands: Sequence[object]) -> tuple[str, ...]:
        like = next((o.dtype for o in operands if isinstance(o, Blob)), None)
        names = []
        for operand in operands:
            if isinstance(operand, (Blob, str)):
                names.append(self._own(operand, op.name).name)
            elif isinstance(operand, (bool, int, float)) and like is not None:
                names.append(self.constant(operand, dtype=like).name)
            elif isinstance(operand, (list, tuple)) and any(isinstance(o, Blob) for o in operand):
                raise NetError(
                    message(
                        op.name, "blobs are given in a list", expected="blobs by position",
                        got=f"a {type(operand).__name__}", remedy=f"Write net.{op.name}(*blobs).",
                    )
                )  # fmt: skip
            elif isinstance(operand, (bool, int, float, np.generic, np.ndarray, list)):
                names.append(self.constant(operand).name)
            else:
                self._own(operand, op.name, attributes=tuple(op.attrs))
        return tuple(names)

    def _attrs(self, op: Op, attrs: Attrs) -> dict[str, Any]:
        full = {**op.attrs, **attrs}
        if len(full) != len(op.attrs):
            unknown = sorted(set(attrs) - set(op.attrs))
            raise NetError(
                message(
                    op.name, f"unknown attribute {', '.join(unknown)}",
                    expected=", ".join(op.attrs) or "none", got=", ".join(unknown),
                    remedy=f"See help(net.{op.name}).",
                )
            )  # fmt: skip
        for key, value in full.items():
            if value is REQUIRED:
                raise NetError(
                    message(op.name, f"attribute {key!r} is missing", expected=f"{key}=...",
                            got="nothing", remedy=f"See help(net.{op.name}).")
                )  # fmt: skip
        return full

    def _check_mutable(self, op: Op, names: tuple[str, ...]) -> None:
        for name in names:
            source = self._sources.get(name)
            if source is None or source.kind not in ("parameter", "state"):
                raise NetError(
                    message(
                        op.name, f"cannot update {name!r} in place",
                        expected="a parameter of the net",
                        got=source.kind if source else "the result of an operator",
                        remedy="Declare it with net.parameter.",
                    )
                )  # fmt: skip
            self._sources[name] = SourceDef(
                name, source.spec, "state", source.device, source.value, source.line
            )

    def _check_barrier(
        self, names: tuple[str, ...], outputs: Sequence[object] | None, cross_device: bool | None
    ) -> None:
        given = (
            names
            if outputs is None
            else tuple(o.name if isinstance(o, Blob) else str(o) for o in outputs)
        )
        if given != names:
            raise NetError(
                message(
                    "barrier", "a barrier given out of place would order nothing",
                    expected=f"outputs equal to inputs {list(names)}", got=list(given),
                    remedy="Leave outputs out and go on using the same blobs.",
                )
            )  # fmt: skip
        if len(set(names)) != len(names):
            raise NetError(
                message("barrier", "a blob is given twice", expected="different blobs",
                        got=list(names), remedy="Name each blob once.")
            )  # fmt: skip
        devices = sorted({self._devices[n] for n in names})
        if cross_device is False and len(devices) > 1:
            raise NetError(
                message("barrier", "blobs on several devices", expected="one device",
                        got=f"devices {devices}", remedy="Pass cross_device=True.")
            )  # fmt: skip

    def _after(self, node: str, after: After) -> tuple[str, ...]:
        if isinstance(after, (str, Blob, AsyncNetBarrier)):
            after = (after,)
        names = []
        for item in after:
            name = item.name if isinstance(item, (Blob, AsyncNetBarrier)) else item
            if name == node:
                raise NetError(
                    message("net", f"node {node!r} is to run after itself", expected="no cycle",
                            got=f"after=[{name!r}]", remedy="Take it out of after=.")
                )  # fmt: skip
            if isinstance(item, Blob) or name not in self._node_names:
                if name in self._sources and name not in self._last_writer:
                    continue  # a source is there before the run starts
                if name not in self._last_writer:
                    raise self._unknown(name, "node", self._node_names)
                name = self._last_writer[name]
            names.append(name)
        return tuple(dict.fromkeys(names))

    def _append(
        self, op: Op, node: str, attrs: Attrs, inputs: tuple[str, ...], outputs: tuple[str, ...],
        device: int, after: After,
    ) -> None:  # fmt: skip
        line = user_line()
        names = self._after(node, after)
        self._node_names[node] = line
        for out in outputs:
            self._last_writer[out] = node
        self.definitions.append(NodeDef(node, op, attrs, inputs, outputs, device, names, line))

    def _unknown(self, name: object, what: str, known: Mapping[str, object]) -> NetError:
        near = difflib.get_close_matches(str(name), list(known), n=1)
        remedy = (
            f"Did you mean {near[0]!r}?"
            if near
            else ("Name something defined before; a later one would close a cycle.")
        )
        return NetError(
            message(f"net {self.name!r}", f"unknown {what} {name!r} at {user_line()}",
                    expected=f"the name of a {what} defined earlier", got=repr(name), remedy=remedy)
        )  # fmt: skip
