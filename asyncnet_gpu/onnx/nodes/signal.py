"""Signals and images: Fourier transforms, windows of them, sampling by a grid, blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.onnx.context import NodeContext
from asyncnet_gpu.onnx.tensors import element_dtype
from asyncnet_gpu.ops.base import OnnxMapping

_MODES = {"linear": "linear", "bilinear": "linear", "nearest": "nearest", "cubic": "cubic",
          "bicubic": "cubic"}  # fmt: skip


def _number(context: NodeContext, index: int, what: str) -> int | None:
    return int(context.number(index, what)) if context.has(index) else None


def _dft(context: NodeContext, node: Any) -> Any:
    axis = context.attr_int("axis", 1) if context.opset < 20 else _number(context, 2, "axis")
    axis = -2 if axis is None else axis
    rank = len(context.x().shape)
    return context.result(
        "dft", context.x(), axis=axis + rank if axis < 0 else axis,
        length=_number(context, 1, "dft_length"), inverse=bool(context.attr_int("inverse", 0)),
        onesided=bool(context.attr_int("onesided", 0)),
    )  # fmt: skip


def _stft(context: NodeContext, node: Any) -> Any:
    """Gather the frames, weigh them by the window, transform each."""
    signal, step = context.x(0), _number(context, 1, "frame_step")
    context.axes(signal, "signal", 2, 3)
    window = context.maybe(2)
    if window is not None:
        context.axes(window, "window", 1)
    length = _number(context, 3, "frame_length")
    if length is None:
        length = window.shape[0] if window is not None else signal.shape[1]
    if len(signal.shape) == 2:
        signal = context.emit("unsqueeze", signal, axes=(2,))
    if not step or step < 1 or not 1 <= length <= signal.shape[1]:
        context.fail("frames", expected="a positive step and a length inside the signal",
                     got=(step, length), remedy="The file is broken.")  # fmt: skip
    count = (signal.shape[1] - length) // step + 1
    context.importer.budget.tensor((signal.shape[0], count, length, 2), 8, context.where)
    places = np.arange(count)[:, None] * step + np.arange(length)
    frames = context.emit("gather", signal, places, axis=1)
    if window is not None:
        frames = context.emit("mul", frames, context.emit("unsqueeze", window, axes=(1,)))
    onesided = bool(context.attr_int("onesided", 1)) and signal.shape[2] == 1
    return context.result("dft", frames, axis=2, onesided=onesided)


def _mel_weights(context: NodeContext, node: Any) -> Any:
    """Triangles of equal width on the mel scale (2595 * log10(1 + f / 700))."""
    n_mel, length, rate, low, high = (context.number(i, f"input {i}") for i in range(5))
    dtype = element_dtype(context.attr_int("output_datatype", 1), context.where)
    n_bins, n = int(length) // 2 + 1, int(n_mel)
    if not 0 < n <= 2**16 or rate <= 0 or length < 1:
        context.fail("inputs", expected=f"1 to {2**16} bands, a length and a rate", remedy="The"
                     " file is broken.", got=(n_mel, length, rate))  # fmt: skip
    context.importer.budget.constant(
        context.importer.budget.tensor((n_bins, n + 2), 8, context.where), context.where
    )
    edges = 2595 * np.log10(1 + np.asarray([low, high], np.float64) / 700)
    mels = np.arange(n + 2) * ((edges[1] - edges[0]) / (n + 2)) + edges[0]
    bins = np.floor((int(length) + 1) * (700 * (10 ** (mels / 2595) - 1)) / rate).astype(np.int64)
    weights = np.zeros((n_bins, n))
    for i in range(n):
        left, centre, right = bins[i : i + 3]
        if centre == left:
            weights[centre, i] = 1
        else:
            weights[left : centre + 1, i] = np.arange(centre - left + 1) / (centre - left)
        if right > centre:
            weights[centre:right, i] = (right - np.arange(centre, right)) / (right - centre)
    return weights.astype(dtype)


def _grid_sample(context: NodeContext, node: Any) -> Any:
    mode = context.attr_str("mode", "linear")
    if mode not in _MODES:
        context.fail("attribute 'mode'", expected=", ".join(_MODES), got=mode[:200],
                     remedy="The file is broken.")  # fmt: skip
    return context.result(
        "grid_sample", context.x(0), context.x(1), mode=_MODES[mode],
        padding=context.attr_str("padding_mode", "zeros"),
        align_corners=bool(context.attr_int("align_corners", 0)),
    )  # fmt: skip


def _col2im(context: NodeContext, node: Any) -> Any:
    return context.result(
        "col2im", context.x(), image=context.known_ints(1, "image_shape"),
        block=context.known_ints(2, "block_shape"), strides=context.attr_ints("strides", None),
        dilations=context.attr_ints("dilations", None), pads=context.attr_ints("pads", None),
    )  # fmt: skip


NODES = {
    "Col2Im": OnnxMapping(since=18, build=_col2im),
    "DFT": OnnxMapping(since=17, build=_dft),
    "GridSample": OnnxMapping(since=16, build=_grid_sample),
    "MelWeightMatrix": OnnxMapping(since=17, build=_mel_weights),
    "STFT": OnnxMapping(since=17, build=_stft),
}
