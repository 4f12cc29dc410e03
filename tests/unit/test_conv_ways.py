"""Every way of convolving on the CPU gives the numbers of the reference, whatever the estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncnet_gpu.ops import conv_bind, conv_filter, conv_shift, registry
from asyncnet_gpu.ops.conv_shape import ConvShape, conv_shape
from asyncnet_gpu.ops.conv_shift import Shift

CONV = registry()["conv"]

# x, w, attributes
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "padded": ((2, 9, 7, 6), (4, 9, 3, 3), {"pads": 1}),
    "unpadded": ((1, 9, 8, 9), (2, 9, 3, 4), {}),
    "lopsided": ((1, 8, 5, 7), (3, 8, 2, 6), {"pads": (0, 2, 1, 3)}),
    "dilated": ((1, 8, 11, 12), (3, 8, 3, 4), {"pads": 2, "dilations": (2, 3)}),
    "grouped": ((2, 16, 6, 7), (6, 8, 3, 4), {"groups": 2, "pads": 1}),
    "depthwise": ((1, 10, 7, 9), (10, 1, 5, 5), {"groups": 10, "pads": 2}),
    "multiplied": ((1, 4, 7, 9), (8, 1, 3, 3), {"groups": 4, "pads": (0, 1, 2, 1)}),
    "a_row": ((1, 8, 40), (3, 8, 6), {"pads": 2}),
    "a_volume": ((1, 8, 5, 6, 7), (3, 8, 2, 3, 2), {"pads": 1}),
    "wide_padding": ((1, 8, 2, 3), (2, 8, 3, 4), {"pads": 4}),
}  # fmt: skip


def arrays(x: tuple[int, ...], w: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.standard_normal(s).astype(np.float32) for s in (x, w, (w[0],))]


def shape_of(ins: list[np.ndarray], attrs: dict[str, Any]) -> ConvShape:
    return conv_shape(ins, {**CONV.attrs, **attrs}, where="conv", n_spatial=None)


def convolve(ins: list[np.ndarray], attrs: dict[str, Any]) -> np.ndarray:
    """Run twice on dirty temporaries, which other operators share.

    What is convolved comes after the binding, as in a plan, and lies as in `ins`.
    """
    values = [array.copy() for array in ins]
    for array in ins:
        array.fill(np.nan)
    shape = shape_of(ins, attrs)
    out = np.empty((shape.n, shape.groups * shape.m, *shape.window.out), np.float32)
    wanted = conv_bind.conv_scratch(shape, out.dtype)
    scratch = [np.empty(s.shape, s.dtype) for s in wanted]
    launch = conv_bind.bind_conv(np, ins, out, shape, scratch)
    for array, value in zip(ins, values, strict=True):
        array[...] = value
    for _ in range(2):
        for array in (*scratch, out):
            array.fill(np.nan)
        launch()
    return out


def ways_of(name: str) -> list[Shift]:
    x, w, attrs = SHAPES[name]
    return conv_shift._ways(shape_of(arrays(x, w), attrs))


@pytest.mark.parametrize("block_bytes", [1, 6000, 1 << 20])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_shifted(
    name: str, strided: bool, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w, attrs = SHAPES[name]
    ins = arrays(x, w)
    if strided:
        ins[:2] = [np.asfortranarray(array) for array in ins[:2]]
    monkeypatch.setattr(conv_shift, "_BLOCK_BYTES", block_bytes)
    (expected,) = CONV.reference(ins, {**CONV.attrs, **attrs})
    for way in [None, *ways_of(name)]:
        monkeypatch.setattr(conv_bind, "choose", lambda shape, dtype, way=way: way)
        np.testing.assert_allclose(convolve(ins, attrs), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("fewest_columns", [1, 9, 20])
@pytest.mark.parametrize("name", SHAPES)
def test_rows_by_rows(name: str, fewest_columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The padded copy of a large image is made for each block of rows."""
    x, w, attrs = SHAPES[name]
    ins = arrays(x, w)
    monkeypatch.setattr(conv_bind, "choose", lambda shape, dtype: None)
    monkeypatch.setattr(conv_bind, "BLOCK_BYTES", 1)
    monkeypatch.setattr(conv_bind, "_FEWEST_COLUMNS", fewest_columns)
    (expected,) = CONV.reference(ins, {**CONV.attrs, **attrs})
    np.testing.assert_allclose(convolve(ins, attrs), expected, rtol=1e-5, atol=1e-4)


def test_there_is_more_than_one_way() -> None:
    assert max(len(ways_of(name)) for name in SHAPES) >= 3
    assert all(ways_of(name) for name in SHAPES)


STEPPING: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "by_two": ((2, 3, 9, 10), (4, 3, 3, 5), {"strides": 2, "pads": 1}),
    "by_two_unpadded": ((1, 3, 9, 11), (4, 3, 2, 6), {"strides": 2}),
    "by_three": ((1, 3, 7, 17), (4, 3, 3, 7), {"strides": (1, 3), "pads": (0, 4, 2, 1)}),
    "rest_unread": ((1, 3, 7, 12), (4, 3, 3, 5), {"strides": (2, 2)}),
    "depthwise": ((2, 6, 8, 9), (6, 1, 5, 5), {"strides": 2, "pads": 2, "groups": 6}),
    "wide_padding": ((1, 3, 2, 2), (4, 3, 3, 7), {"strides": (1, 3), "pads": 6}),
    "a_row": ((2, 3, 30), (4, 3, 9), {"strides": 4, "pads": 3}),
    "a_volume": ((1, 3, 5, 4, 7), (4, 3, 2, 3, 5), {"strides": (2, 1, 2), "pads": 1}),
    "dilated": ((1, 3, 9, 12), (4, 3, 3, 5), {"strides": 2, "dilations": 2}),
}  # fmt: skip


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
@pytest.mark.parametrize("name", STEPPING)
def test_steps(name: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, attrs = STEPPING[name]
    ins = arrays(x, w)
    assert (conv_bind._phases(shape_of(ins, attrs).window) > 1) == (name != "dilated")
    monkeypatch.setattr(conv_bind, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(conv_bind, "_FEWEST_COLUMNS", 4)
    (expected,) = CONV.reference(ins, {**CONV.attrs, **attrs})
    np.testing.assert_allclose(convolve(ins, attrs), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("length", [64 * 4 + 31, 64 * 4 + 32, 700])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("row", [False, True])
def test_filters(length: int, stride: int, row: bool) -> None:
    extent = (length - 1) * stride + 32
    x, w = ((2, 1, 1, extent), (1, 1, 1, 32)) if row else ((2, 1, extent), (1, 1, 32))
    ins, attrs = arrays(x, w), {"strides": (1, stride) if row else stride}
    ins[1] = arrays(x, (*w[:-1], 2 * w[-1]))[1][..., ::2]
    assert conv_filter.is_filter(shape_of(ins, attrs), ins[0].dtype)
    (expected,) = CONV.reference(ins, {**CONV.attrs, **attrs})
    np.testing.assert_allclose(convolve(ins, attrs), expected, rtol=1e-5, atol=1e-4)


def test_shifting_is_chosen_for_few_channels_out_and_for_wide_planes() -> None:
    few = shape_of(arrays((1, 96, 60, 80), (8, 96, 3, 3)), {"pads": 1})
    planes = shape_of(arrays((1, 64, 60, 60), (64, 1, 5, 5)), {"pads": 2, "groups": 64})
    many = shape_of(arrays((1, 16, 14, 14), (256, 16, 3, 3)), {"pads": 1})
    stepping = shape_of(arrays((1, 96, 60, 80), (8, 96, 3, 3)), {"strides": 2})
    dtype = np.dtype(np.float32)
    assert conv_shift.choose(few, dtype)
    assert conv_shift.choose(planes, dtype)
    assert not conv_shift.choose(many, dtype)
    assert not conv_shift.choose(stepping, dtype)
