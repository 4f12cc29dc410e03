"""Convolution and pooling: padding in numbers, whatever it was given as."""

from __future__ import annotations

from typing import Any

from asyncnet_gpu.onnx.export import Writer
from asyncnet_gpu.ops.checks import as_ints
from asyncnet_gpu.ops.windows import explicit_pads, make_window, spread


def _window(w: Writer, kernel: tuple[int, ...]) -> dict[str, Any]:
    """Return the attributes that convolution and pooling share."""
    window = make_window(
        w.ins[0].shape[2:], kernel, strides=w.attrs["strides"], pads=w.attrs["pads"],
        dilations=w.attrs["dilations"], ceil_mode=w.attrs.get("ceil_mode", False),
        where=w.definition.op.name,
    )  # fmt: skip
    return {
        "kernel_shape": list(kernel), "strides": list(window.strides),
        "dilations": list(window.dilations), "pads": [*window.begin, *window.end],
    }  # fmt: skip


def _conv(w: Writer) -> None:
    window = _window(w, w.ins[1].shape[2:])
    w.node("Conv", w.inputs, w.outputs, group=w.attrs["groups"], **window)


def _conv_transpose(w: Writer) -> None:
    n = len(w.ins[0].shape) - 2
    where = "conv_transpose"
    begin, end = explicit_pads(w.attrs["pads"], n, where=where)
    extra = as_ints(w.attrs["output_padding"], "output_padding", where=where)
    w.node(
        "ConvTranspose", w.inputs, w.outputs, group=w.attrs["groups"],
        kernel_shape=list(w.ins[1].shape[2:]), pads=[*begin, *end],
        strides=list(spread(w.attrs["strides"], "strides", n, 1, where=where)),
        dilations=list(spread(w.attrs["dilations"], "dilations", n, 1, where=where)),
        output_padding=list(extra * n if len(extra) == 1 else extra),
    )  # fmt: skip


def _pool(op_type: str, w: Writer, **more: Any) -> None:
    n = len(w.ins[0].shape) - 2
    kernel = spread(w.attrs["kernel"], "kernel", n, 1, where=w.definition.op.name)
    window = _window(w, kernel)
    if w.attrs["ceil_mode"]:
        w.needs(22)  # before, a last window that begins in the padding counted
    w.node(op_type, w.inputs, w.outputs, ceil_mode=int(w.attrs["ceil_mode"]), **window, **more)


def _average_pool(w: Writer) -> None:
    _pool("AveragePool", w, count_include_pad=int(w.attrs["count_include_pad"]))


WRITERS = {
    "average_pool": _average_pool,
    "conv": _conv,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "conv_transpose": _conv_transpose,
    "max_pool": lambda w: _pool("MaxPool", w),
    "max_pool_places": lambda w: _pool("MaxPool", w),
}
