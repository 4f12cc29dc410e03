"""The user's own operators: a Python function over arrays, or a CUDA kernel with a CPU twin."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.errors import ShapeError, UnsupportedOpError, message
from asyncnet_gpu.ops.base import (
    REQUIRED,
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    Op,
    Specs,
)
from asyncnet_gpu.specs import spec


def _bad(where: str, what: str, expected: str, got: object) -> ShapeError:
    return ShapeError(
        message(where, what, expected=expected, got=repr(got), remedy=f"See net.{where}.")
    )


def _infer(ins: Specs, attrs: Attrs, where: str) -> Specs:
    shapes, dtypes = attrs["shapes"], attrs["dtypes"]
    if not isinstance(shapes, tuple) or not isinstance(dtypes, tuple) or not shapes:
        raise _bad(where, "outputs", "shapes and dtypes", (shapes, dtypes))
    if len(shapes) != len(dtypes):
        raise _bad(where, "outputs", f"{len(shapes)} dtypes", len(dtypes))
    return tuple([spec(s, dtype, where=where) for s, dtype in zip(shapes, dtypes, strict=True)])


def _infer_call(ins: Specs, attrs: Attrs) -> Specs:
    if not callable(attrs["fn"]):
        raise _bad("call", "fn", "a function", attrs["fn"])
    return _infer(ins, attrs, "call")


def _infer_kernel(ins: Specs, attrs: Attrs) -> Specs:
    args, cpu = attrs["args"], attrs["cpu"]
    if not isinstance(args, tuple) or sum(scalar is None for scalar in args) != len(ins):
        raise _bad("kernel", "args", f"{len(ins)} blobs, and scalars", args)
    if cpu is not None and not callable(cpu):
        raise _bad("kernel", "cpu", "a function or None", cpu)
    for name in ("source", "entry"):
        if not isinstance(attrs[name], str):
            raise _bad("kernel", name, "text", attrs[name])
    for name in ("grid", "block"):
        extents = attrs[name]
        if (
            not isinstance(extents, tuple)
            or len(extents) != 3
            or not all(isinstance(e, int) and e > 0 for e in extents)
        ):
            raise _bad("kernel", name, "three extents of at least 1", extents)
    shared = attrs["shared_bytes"]
    if not isinstance(shared, int) or shared < 0:
        raise _bad("kernel", "shared_bytes", "at least 0", shared)
    return _infer(ins, attrs, "kernel")


def _single(outs: Arrays) -> Any:
    return outs[0] if len(outs) == 1 else tuple(outs)


def _bind_call(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return partial(attrs["fn"], xp, *ins, out=_single(outs))


def _reference_call(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    pairs = zip(attrs["shapes"], attrs["dtypes"], strict=True)
    outs = [np.empty(shape, dtype) for shape, dtype in pairs]
    attrs["fn"](np, *ins, out=_single(outs))
    return tuple(outs)


def _kernel_args(ins: Arrays, attrs: Attrs) -> list[Any]:
    arrays = iter(ins)
    return [next(arrays) if scalar is None else scalar for scalar in attrs["args"]]


def _bind_kernel(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    if attrs["cpu"] is None:
        raise UnsupportedOpError(
            message(
                "kernel", f"kernel {attrs['entry']!r} has no CPU twin", expected="cpu=fn",
                got="cpu=None", remedy="Pass cpu=fn(xp, *args, out=array) or compile for CUDA.",
            )
        )  # fmt: skip
    return partial(attrs["cpu"], xp, *_kernel_args(ins, attrs), out=_single(outs))


def _launch_kernel(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> tuple[KernelLaunch, ...]:
    return (
        KernelLaunch(
            file="",
            entry=attrs["entry"],
            grid=attrs["grid"],
            block=attrs["block"],
            args=(*_kernel_args(ins, attrs), *outs),
            shared_bytes=attrs["shared_bytes"],
            source=attrs["source"],
        ),
    )


def _reference_kernel(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    pairs = zip(attrs["shapes"], attrs["dtypes"], strict=True)
    outs = [np.empty(shape, dtype) for shape, dtype in pairs]
    attrs["cpu"](np, *_kernel_args(ins, attrs), out=_single(outs))
    return tuple(outs)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    # Nothing is known about the user's code: a few operations per element, lock released.
    moved = sum(s.nbytes for s in ins) + sum(s.nbytes for s in outs)
    flops = 8.0 * sum(s.size for s in outs)
    return Cost(flops=flops, bytes=float(2 * moved), interpreted=True)


OPS = (
    Op(
        name="call",
        kind="Call",
        doc="Call the user's own function; see `AsyncNet.call`.",
        n_inputs=(0, None),
        attrs={"fn": REQUIRED, "shapes": REQUIRED, "dtypes": REQUIRED},
        infer=_infer_call,
        bind=_bind_call,
        reference=_reference_call,
        cost=_cost,
        effect=True,
    ),
    Op(
        name="kernel",
        kind="Kernel",
        doc="Launch the user's own CUDA kernel; see `AsyncNet.kernel`.",
        n_inputs=(0, None),
        attrs={
            "source": REQUIRED, "entry": REQUIRED, "args": REQUIRED, "grid": REQUIRED,
            "block": REQUIRED, "cpu": None, "shapes": REQUIRED, "dtypes": REQUIRED,
            "shared_bytes": 0,
        },
        infer=_infer_kernel,
        bind=_bind_kernel,
        kernel=_launch_kernel,
        reference=_reference_kernel,
        cost=_cost,
        effect=True,
        packed=True,
    ),
)  # fmt: skip
