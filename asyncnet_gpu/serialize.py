"""A net definition as JSON-able data, and back. No pickle, no import by name.

Parameters and constants travel as one safetensors block (base64 in the JSON); user functions only
by name: who reads a definition passes them in.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from asyncnet_gpu import ops
from asyncnet_gpu.errors import AsyncNetError, NetError, message

if TYPE_CHECKING:
    from asyncnet_gpu.net import AsyncNet

FORMAT = 1
Functions = Mapping[str, Callable[..., object]]


def function_name(fn: Callable[..., object]) -> str:
    """Return the name under which a user function is written: ``module.qualname``."""
    return f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', repr(fn))}"


def _encode(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return {"tuple": [_encode(v, where) for v in value]}
    if isinstance(value, np.generic):
        return {"scalar": value.dtype.name, "value": value.item()}
    if isinstance(value, np.dtype):
        return {"dtype": value.name}
    if isinstance(value, np.ndarray):
        return {"array": base64.b64encode(save_tensors({"a": value})).decode()}
    if callable(value):
        return {"function": function_name(value)}
    raise NetError(
        message("to_dict", f"attribute of {where}", expected="numbers, text, arrays or functions",
                got=type(value).__name__, remedy="Give the attribute as plain data.")
    )  # fmt: skip


def _decode(value: Any, functions: Functions) -> Any:
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_decode(v, functions) for v in value["tuple"])
    if "scalar" in value:
        return np.dtype(value["scalar"]).type(value["value"])
    if "dtype" in value:
        return np.dtype(value["dtype"])
    if "array" in value:
        return load_tensors(base64.b64decode(value["array"], validate=True))["a"]
    name = value["function"]
    if name not in functions:
        raise NetError(
            message(
                "from_dict", f"user function {name!r}", expected="a function under this name",
                got=", ".join(functions) or "none", remedy=f"Pass functions={{{name!r}: fn}}.",
            )
        )  # fmt: skip
    return functions[name]


def net_to_dict(net: AsyncNet) -> dict[str, Any]:
    """Return the definition as data that `json.dumps` takes.

    Raises
    ------
    NetError
        If an attribute of an operator is no plain data.
    """
    values = {s.name: np.ascontiguousarray(s.value) for s in net.sources if s.value is not None}
    return {
        "format": FORMAT,
        "name": net.name,
        "sources": [
            {"name": s.name, "kind": s.kind, "shape": list(s.spec.shape),
             "dtype": s.spec.dtype.name, "device": s.device}
            for s in net.sources
        ],
        "nodes": [
            {"name": d.name, "op": d.op.name, "inputs": list(d.inputs), "outputs": list(d.outputs),
             "device": d.device, "after": list(d.after),
             "attrs": {k: _encode(v, f"node {d.name!r}") for k, v in d.attrs.items()}}
            for d in net.definitions
        ],
        "outputs": dict(net.outputs),
        "values": base64.b64encode(save_tensors(values)).decode(),
    }  # fmt: skip


def net_from_dict(data: Mapping[str, Any], *, functions: Functions | None = None) -> AsyncNet:
    """Rebuild a net; every check of building it by hand is made again.

    Raises
    ------
    NetError
        If the data are not of this form, name an operator that does not exist, or a user function
        that `functions` lacks.
    """
    from asyncnet_gpu.net import AsyncNet

    try:
        if data["format"] != FORMAT:
            raise NetError(
                message("from_dict", "format", expected=FORMAT, got=data["format"],
                        remedy="Write the net again with this version.")
            )  # fmt: skip
        net = AsyncNet(str(data["name"]))
        values = load_tensors(base64.b64decode(data["values"], validate=True))
        _add_sources(net, data["sources"], values)
        for node in data["nodes"]:
            _add_node(net, node, functions or {})
        net.output(**{key: net.blob(name) for key, name in data["outputs"].items()})
    except (KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        if isinstance(error, AsyncNetError):
            raise
        raise NetError(
            message("from_dict", "broken definition", expected="what to_dict wrote",
                    got=f"{type(error).__name__}: {error}", remedy="Write the net again.")
        ) from error  # fmt: skip
    return net


def _add_sources(net: AsyncNet, sources: Any, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    for source in sources:
        with net.device(source["device"]):
            name, kind = source["name"], source["kind"]
            if kind == "input":
                net.input(name, source["shape"], source["dtype"])
            elif kind in ("parameter", "state"):
                net.parameter(name, values[name])
            else:
                net.constant(values[name], name=name)


def _add_node(net: AsyncNet, node: Any, functions: Functions) -> None:
    op = ops.registry().get(node["op"])
    if op is None:
        raise NetError(
            message("from_dict", f"node {node['name']!r}", expected="a known operator",
                    got=node["op"], remedy="Update the library, or correct the definition.")
        )  # fmt: skip
    inputs = [net.blob(name) for name in node["inputs"]]
    with net.device(node["device"]):
        if op.name in ("async_barrier", "async_net_barrier"):
            net.barrier(
                *inputs, name=node["name"], outputs=node["outputs"], after=node["after"],
                cross_device=op.name == "async_net_barrier",
            )  # fmt: skip
            return
        attrs = {key: _decode(value, functions) for key, value in node["attrs"].items()}
        net.add_node(
            op, inputs, attrs, name=node["name"], outputs=node["outputs"], after=node["after"]
        )


def save_net(net: AsyncNet, path: str) -> None:
    """Write the definition to a JSON file."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(net_to_dict(net), file)
