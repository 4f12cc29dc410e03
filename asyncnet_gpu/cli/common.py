"""What commands share: options, the net that a word on the command line means, output as JSON."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from asyncnet_gpu.errors import NetError, message
from asyncnet_gpu.net import AsyncNet

NetArgument = Annotated[
    str, typer.Argument(metavar="NET", help="model.onnx, net.json, or file.py:function")
]
BackendOption = Annotated[str, typer.Option(help="cpu, cuda, sim or auto")]
ModeOption = Annotated[str, typer.Option(help="serial, streams, graph, graph-serial or auto")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
AllocatorOption = Annotated[str, typer.Option(help="cost or exact (every overlap, fewest waits)")]
StreamsOption = Annotated[int | None, typer.Option(min=1, help="compute streams per device")]
ShapeOption = Annotated[
    list[str] | None, typer.Option("--shape", metavar="NAME=1,3,224,224", help="of an ONNX input")
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=FILE.npy", help="or NAME=3.5; otherwise random"),
]
SeedOption = Annotated[int, typer.Option(help="of the random inputs")]


def load_net(target: str, shapes: list[str] | None = None) -> AsyncNet:
    """Return the net that `target` names.

    Parameters
    ----------
    target
        An ONNX file, a definition saved by ``net.to_dict()``, or ``file.py:function``, a function
        without arguments that returns a net (such a file is executed).
    shapes
        ``NAME=1,3,224,224`` for the free dimensions of an ONNX model.
    """
    path, _, function = target.partition(":")
    file = Path(path)
    if not file.is_file():
        raise _bad(f"no such file {path!r}", got=target)
    if function:
        return _from_python(file, function, target)
    if file.suffix == ".onnx":
        from asyncnet_gpu.onnx import load_onnx

        net = load_onnx(file, shapes=parse_shapes(shapes))
        if isinstance(net, AsyncNet):
            return net
        raise NetError(
            message(
                "cli",
                f"the shapes of {path!r} are not all known",
                expected="a shape for each input with free dimensions",
                got=f"--shape {shapes or []}",
                remedy="Give --shape NAME=1,3,224,224; `asyncnet inspect` shows the inputs.",
            )
        )
    if file.suffix == ".json":
        return AsyncNet.from_dict(json.loads(file.read_text()))
    raise _bad(f"the kind of {path!r} is not known", got=target)


def _bad(what: str, *, got: object) -> NetError:
    return NetError(
        message(
            "cli",
            what,
            expected="model.onnx, net.json or file.py:function",
            got=repr(got),
            remedy="Name a net in one of these ways.",
        )
    )


def _from_python(file: Path, function: str, target: str) -> AsyncNet:
    description = importlib.util.spec_from_file_location(file.stem, file)
    if description is None or description.loader is None:
        raise _bad(f"{file} is not a Python file", got=target)
    module = importlib.util.module_from_spec(description)
    sys.modules[file.stem] = module
    description.loader.exec_module(module)
    make = getattr(module, function, None)
    net = make() if callable(make) else None
    if not isinstance(net, AsyncNet):
        raise _bad(f"{function!r} in {file} gives no AsyncNet", got=target)
    return net


def parse_shapes(shapes: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    """Return ``{"x": (1, 3)}`` for ``["x=1,3"]``."""
    if not shapes:
        return None
    parsed = {}
    for text in shapes:
        name, equals, extents = text.rpartition("=")
        try:
            parsed[name] = tuple([int(extent) for extent in extents.split(",") if extent])
        except ValueError:
            equals = ""
        if not equals:
            raise typer.BadParameter(f"expected NAME=1,3,224,224, got {text!r}")
    return parsed


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    print(json.dumps(value, indent=1, default=str))
