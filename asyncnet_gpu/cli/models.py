"""Nets with free dimensions on the command line, the arrays they are fed, how results differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from asyncnet_gpu.cli.common import load_net, parse_shapes
from asyncnet_gpu.errors import NetError, ShapeError, message
from asyncnet_gpu.net import AsyncNet

if TYPE_CHECKING:
    from asyncnet_gpu.onnx import OnnxNet

Array = np.ndarray[Any, Any]
Inputs = dict[str, "tuple[np.dtype[Any], tuple[int | str | None, ...] | None]"]


def open_net(target: str) -> AsyncNet | OnnxNet:
    """Return the net that `target` names, of a model with free dimensions as an `OnnxNet`."""
    if Path(target).suffix != ".onnx" or not Path(target).is_file():
        return load_net(target)
    try:
        from asyncnet_gpu.onnx import OnnxNet, load_onnx
    except ImportError as error:
        raise NetError(
            message("cli", f"cannot read {target!r}", expected="the package onnx", got="none",
                    remedy="pip install 'asyncnet-gpu[onnx]'.")
        ) from error  # fmt: skip
    net = load_onnx(target)
    if isinstance(net, (AsyncNet, OnnxNet)):
        return net
    raise NetError(
        message("cli", "inputs or outputs of the model are no plain tensors", expected="tensors",
                got="sequences or the like", remedy="Use asyncnet_gpu.load_onnx in Python.")
    )  # fmt: skip


def inputs_of(net: AsyncNet | OnnxNet) -> Inputs:
    """Return dtype and extents of each input; an extent that is no integer is free."""
    if isinstance(net, AsyncNet):
        return {s.name: (s.spec.dtype, s.spec.shape) for s in net.sources if s.kind == "input"}
    return dict(net.inputs)


def bound_net(net: AsyncNet | OnnxNet, arrays: Mapping[str, Array]) -> AsyncNet:
    """Return the net for inputs of these shapes and, where shapes depend on them, values.

    Raises
    ------
    NetError
        If one net cannot be had: the model runs in stages, or its inputs decide all of it.
    """
    if isinstance(net, AsyncNet):
        return net
    from asyncnet_gpu.onnx.context import NeedsValue

    while True:
        values = {name: array for name, array in arrays.items() if name in net.bound}
        try:
            bound = net.bind({n: a.shape for n, a in arrays.items() if n not in values}, values)
        except NeedsValue as needed:
            if net.runs_in_stages(needed, arrays):
                raise _no_single_net(
                    net,
                    "it runs in stages: shapes depend on what a run computes",
                    "`asyncnet run` takes it; in Python each of exe.stages has trace() and "
                    "report().",
                ) from needed
            net.bind_value(needed)
        else:
            if values and not bound.definitions:
                raise _no_single_net(
                    net,
                    f"the values of {', '.join(values)} decide shapes, and all that follows "
                    "is worked out while importing",
                    "`asyncnet run` takes it; or in Python "
                    "load_onnx(..., limits=Limits(max_bound_bytes=0)), which runs in stages.",
                )
            return bound


def _no_single_net(net: OnnxNet, what: str, remedy: str) -> NetError:
    return NetError(
        message("cli", f"there is no single plan of {net.name!r} to look at: {what}",
                expected="a model whose shapes follow from those of its inputs",
                got="shapes that depend on data", remedy=remedy)
    )  # fmt: skip


def make_inputs(
    inputs: Inputs, given: Sequence[str] | None, shapes: list[str] | None, seed: int
) -> dict[str, Array]:
    """Return an array for every input: as given, else random and the same for the same seed.

    Parameters
    ----------
    given
        ``NAME=FILE.npy`` or ``NAME=3.5``; a number fills the input.
    shapes
        ``NAME=1,3,224,224``.

    Notes
    -----
    Floats are drawn from the standard normal distribution, integers from 0 and 1, which are right
    as indices into anything. A free dimension is 1 unless the shape of another input sets it.
    """
    wanted = _wanted(inputs, shapes)
    arrays: dict[str, Array] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or name not in inputs:
            raise typer.BadParameter(
                f"expected NAME=FILE.npy or NAME=NUMBER with NAME one of "
                f"{', '.join(inputs) or 'none'}, got {text!r}"
            )
        arrays[name] = _given_array(name, value, inputs[name][0], wanted.get(name, inputs[name][1]))
        wanted[name] = arrays[name].shape
    sizes = {
        extent: size
        for name, shape in wanted.items()
        for extent, size in zip(inputs[name][1] or (), shape, strict=False)
        if isinstance(extent, str)
    }
    rng = np.random.default_rng(seed)
    for name, (dtype, extents) in inputs.items():
        if name not in arrays:
            arrays[name] = _random(rng, dtype, _shape(name, wanted.get(name, extents), sizes))
    return {name: arrays[name] for name in inputs}


def _wanted(inputs: Inputs, shapes: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Return the shapes that are asked for, held against what the net says."""
    wanted = parse_shapes(shapes) or {}
    for name, shape in wanted.items():
        if name not in inputs:
            raise typer.BadParameter(
                f"--shape {name}: expected one of {', '.join(inputs) or 'none'}"
            )
        extents = inputs[name][1]
        fits = extents is None or (
            len(extents) == len(shape)
            and all(e == s or not isinstance(e, int) for e, s in zip(extents, shape, strict=True))
        )
        if not fits:
            raise ShapeError(
                message("cli", f"shape of input {name!r}", expected=list(extents or ()),
                        got=list(shape), remedy="Give a shape that the net takes.")
            )  # fmt: skip
    return wanted


def _given_array(name: str, value: str, dtype: np.dtype[Any], extents: Any) -> Array:
    if not Path(value).is_file():
        try:
            return np.full(_shape(name, extents, {}), float(value)).astype(dtype)
        except ValueError:
            raise typer.BadParameter(f"{name}: no such file, and no number: {value!r}") from None
    try:
        array = np.load(value, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise typer.BadParameter(f"{name}: {value} is no .npy file: {error}") from None
    if not isinstance(array, np.ndarray):
        raise typer.BadParameter(f"{name}: {value} holds several arrays; give a .npy file")
    return array


def _shape(name: str, extents: Any, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if extents is None:
        raise NetError(
            message("cli", f"the shape of input {name!r} is not known", expected="a shape",
                    got="none in the file", remedy=f"Give --shape {name}=1,3,224,224.")
        )  # fmt: skip
    return tuple([e if isinstance(e, int) else sizes.get(str(e), 1) for e in extents])


def _random(rng: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    return np.asarray(rng.integers(0, 2, shape)).astype(dtype)


# -- differences ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """How two arrays differ.

    Attributes
    ----------
    equal
        Whether every element agrees within the tolerance.
    max_abs, max_rel
        Largest differences between finite elements; the second by the size of the right one,
        where that is above `atol`.
    count
        Elements outside the tolerance.
    note
        What else is wrong: shape or dtype; "" when nothing is.
    """

    equal: bool
    max_abs: float
    max_rel: float
    count: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        compared = not self.note
        return {"equal": self.equal, "max_abs": self.max_abs if compared else None,
                "max_rel": self.max_rel if compared else None, "count": self.count,
                "note": self.note}  # fmt: skip


def number(value: float | None) -> str:
    """Return a difference for a table."""
    return "-" if value is None else f"{value:.3g}"


def difference(left: Array, right: Array, *, rtol: float, atol: float) -> Difference:
    """Compare arrays: ``|left - right| <= atol + rtol |right|``; NaN equals NaN.

    With both tolerances 0 the bits must agree, but for the sign of a zero.
    """
    if left.shape != right.shape or left.dtype != right.dtype:
        note = f"{left.dtype}{list(left.shape)} against {right.dtype}{list(right.shape)}"
        return Difference(False, float("inf"), float("inf"), left.size, note)
    if left.dtype.kind != "f":
        apart = left != right
        gap = np.abs(left.astype(np.float64) - right.astype(np.float64))
        scale = np.abs(right.astype(np.float64))
    else:
        a, b = left.astype(np.float64), right.astype(np.float64)
        with np.errstate(all="ignore"):
            gap, scale = np.abs(a - b), np.abs(b)
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            # An infinity is close to nothing but itself.
            apart = ~same & ~((gap <= atol + rtol * scale) & np.isfinite(gap))
            gap = np.where(same | ~np.isfinite(gap), 0, gap)
    with np.errstate(all="ignore"):
        relative = np.where((gap == 0) | ~(scale > atol), 0, gap / scale)
    count = int(np.count_nonzero(apart))
    return Difference(
        count == 0, float(gap.max(initial=0)), float(relative.max(initial=0)), count
    )  # fmt: skip


def summary(array: Array) -> str:
    """Return a line about the values of an array."""
    if not array.size:
        return "empty"
    if array.size <= 6:
        return np.array2string(array, precision=5, separator=", ").replace("\n", "")
    wide = array.astype(np.float64)
    bad = int(np.count_nonzero(~np.isfinite(wide)))
    text = f"min {wide.min():.5g}, mean {wide.mean():.5g}, max {wide.max():.5g}"
    return f"{text}, {bad} not finite" if bad else text
