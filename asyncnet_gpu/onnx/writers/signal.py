"""Recurrent layers, resampling, Fourier transforms, blocks of images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asyncnet_gpu.onnx.export import Writer
from asyncnet_gpu.ops.cell_activations import ACTIVATIONS

#: ONNX's spelling of activations, and how many numbers each takes.
_NAMES = {
    "affine": ("Affine", 2), "elu": ("Elu", 1), "hardsigmoid": ("HardSigmoid", 2),
    "leakyrelu": ("LeakyRelu", 1), "relu": ("Relu", 0), "scaledtanh": ("ScaledTanh", 2),
    "sigmoid": ("Sigmoid", 0), "softplus": ("Softplus", 0), "softsign": ("Softsign", 0),
    "tanh": ("Tanh", 0), "thresholdedrelu": ("ThresholdedRelu", 1),
}  # fmt: skip


def _activations(w: Writer) -> dict[str, Any]:
    if w.attrs["activations"] is None:
        return {}
    names, alphas, betas = [], [], []
    for name, alpha, beta in w.attrs["activations"]:
        spelled, count = _NAMES[name]
        _, first, second = ACTIVATIONS[name]
        names.append(spelled)
        if count > 0:
            alphas.append(float(first if alpha is None else alpha))
        if count > 1:
            betas.append(float(second if beta is None else beta))
    given = {"activations": names, "activation_alpha": alphas, "activation_beta": betas}
    return {key: values for key, values in given.items() if values}


def _recurrent(w: Writer) -> None:
    cell, n_states = w.definition.op.name, 2 if w.definition.op.name == "lstm" else 1
    x, weights, r, bias, *rest = w.inputs
    states, rest = rest[:n_states], rest[n_states:]
    peephole = [rest.pop(0)] if w.attrs["has_peephole"] else []
    lengths = ""
    if w.attrs["has_lengths"]:
        lengths = rest.pop(0)
        if w.ins[-1].dtype != np.int32:
            to = w.element_type("int32")
            lengths = w.step("Cast", [lengths], "int32", to=to)
    more: dict[str, Any] = _activations(w)
    if w.attrs["clip"] is not None:
        more["clip"] = float(w.attrs["clip"])
    if cell == "lstm":
        more["input_forget"] = int(w.attrs["couple_gates"])
    if cell == "gru":
        more["linear_before_reset"] = int(w.attrs["reset_after"])
    w.node(cell.upper(), [x, weights, r, bias, lengths, *states, *peephole], w.outputs,
           direction=w.attrs["direction"], hidden_size=w.ins[2].shape[2], **more)  # fmt: skip


def _resize(w: Writer) -> None:
    attrs, shape, sizes = w.attrs, w.ins[0].shape, w.outs[0].shape
    roi, scales, extents = "", "", ""
    if attrs["scales"] is None:
        extents = w.ints(sizes, "sizes")
    else:
        factors = np.asarray(attrs["scales"], np.float32)
        reached = tuple(math.floor(n * float(f)) for n, f in zip(shape, factors, strict=True))
        if reached != tuple(sizes):
            w.fail(f"scales={attrs['scales']} with sizes={tuple(sizes)}",
                   "Give sizes that are the extents times the scales.")  # fmt: skip
        scales = w.constant(factors, "scales")
    if attrs["roi"] is not None:
        roi = w.constant(np.asarray(attrs["roi"], np.float32), "roi")
    inputs = [w.inputs[0], roi, scales, extents]
    while not inputs[-1]:
        inputs.pop()
    w.node(
        "Resize", inputs, w.outputs, mode=attrs["mode"], nearest_mode=attrs["rounding"],
        coordinate_transformation_mode=attrs["coordinates"], cubic_coeff_a=float(attrs["cubic_a"]),
        exclude_outside=int(attrs["exclude_outside"]), antialias=int(attrs["antialias"]),
        extrapolation_value=float(attrs["extrapolation"]),
    )  # fmt: skip


def _dft(w: Writer) -> None:
    if w.attrs["inverse"] and w.attrs["onesided"]:
        w.fail("inverse and onesided", "Rebuild the whole spectrum first.")
    rank = len(w.ins[0].shape)
    # Ours counts from the end without the last axis, which holds real and imaginary part.
    axis = w.attrs["axis"] % (rank - 1)
    length = w.attrs["length"]
    given = "" if length is None else w.constant(np.asarray(length, np.int64), "length")
    w.node("DFT", [*w.inputs, given, w.constant(np.asarray(axis, np.int64), "axis")], w.outputs,
           inverse=int(w.attrs["inverse"]), onesided=int(w.attrs["onesided"]))  # fmt: skip


def _grid_sample(w: Writer) -> None:
    w.node("GridSample", w.inputs, w.outputs, mode=w.attrs["mode"],
           padding_mode=w.attrs["padding"],
           align_corners=int(w.attrs["align_corners"]))  # fmt: skip


def _col2im(w: Writer) -> None:
    given = {k: list(w.attrs[k]) for k in ("strides", "dilations", "pads") if w.attrs[k]}
    shapes = [w.ints(w.attrs["image"], "image"), w.ints(w.attrs["block"], "block")]
    w.node("Col2Im", [*w.inputs, *shapes], w.outputs, **given)


def _roi_align(w: Writer) -> None:
    height, width = w.attrs["size"]
    frame = "half_pixel" if w.attrs["half_pixel"] else "output_half_pixel"
    w.node(
        "RoiAlign", w.inputs, w.outputs, output_height=height, output_width=width,
        sampling_ratio=w.attrs["samples"], spatial_scale=float(w.attrs["scale"]),
        coordinate_transformation_mode=frame, mode="max" if w.attrs["mode"] == "max" else "avg",
    )  # fmt: skip


WRITERS = {
    "col2im": _col2im,
    "dft": _dft,
    "grid_sample": _grid_sample,
    "gru": _recurrent,
    "lstm": _recurrent,
    "resize": _resize,
    "rnn": _recurrent,
    "roi_align": _roi_align,
}
