"""Operators as plain array code for NumPy and CuPy: what a user without a library would write.

`TABLE` maps an operator's name to ``f(xp, *arrays, **attrs)``; rivals that need a task for every
node take it from there. Nothing here comes from `asyncnet_gpu`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def pair(value: Any) -> tuple[int, int]:
    """Return a number or a pair as a pair."""
    if value is None:
        return (1, 1)
    return (value, value) if isinstance(value, int) else tuple(value)


def borders(pads: Any) -> list[tuple[int, int]]:
    """Return (before, after) of height and width for 1, 2 or 4 numbers (befores, then afters)."""
    if isinstance(pads, int):
        return [(pads, pads)] * 2
    values = tuple(pads)
    return [(values[i], values[i + len(values) // 2]) for i in range(2)]


def padded(xp: Any, x: Any, pads: Any, value: float = 0.0) -> Any:
    """Pad height and width of (n, c, h, w)."""
    border = borders(pads)
    if not any(map(any, border)):
        return x
    return xp.pad(x, [(0, 0), (0, 0), *border], constant_values=value)


def windows(xp: Any, x: Any, kernel: tuple[int, int], strides: tuple[int, int]) -> Any:
    """Return a view (n, c, oh, ow, kh, kw) of the windows."""
    view = xp.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    return view[:, :, :: strides[0], :: strides[1]]


def conv2d(
    xp: Any, x: Any, w: Any, b: Any = None, *, strides: Any = None, pads: Any = 0,
    dilations: Any = None, groups: int = 1,
) -> Any:  # fmt: skip
    """Convolution as one matrix product; depthwise as a sum of shifted products."""
    strides = pair(strides)
    x = padded(xp, x, pads)
    if groups > 1:
        out = depthwise(xp, x, w, strides)
    else:
        if w.shape[2:] == (1, 1) and strides == (1, 1):
            n, c, oh, ow = x.shape
            columns = x.reshape(n, c, oh * ow)
        else:
            view = windows(xp, x, w.shape[2:], strides)
            n, _, oh, ow = view.shape[:4]
            columns = view.transpose(0, 1, 4, 5, 2, 3).reshape(n, -1, oh * ow)
        out = (w.reshape(w.shape[0], -1) @ columns).reshape(n, w.shape[0], oh, ow)
    return out if b is None else out + b[:, None, None]


def depthwise(xp: Any, x: Any, w: Any, strides: tuple[int, int]) -> Any:
    """One filter for each channel."""
    kh, kw = w.shape[2:]
    oh, ow = ((x.shape[2 + i] - k) // strides[i] + 1 for i, k in enumerate((kh, kw)))
    out = xp.zeros((x.shape[0], x.shape[1], oh, ow), x.dtype)
    for i in range(kh):
        for j in range(kw):
            cut = x[
                :, :, i : i + oh * strides[0] : strides[0], j : j + ow * strides[1] : strides[1]
            ]
            out += cut[:, :, :oh, :ow] * w[:, 0, i, j][:, None, None]
    return out


def pool(
    xp: Any, x: Any, *, kernel: Any, strides: Any = None, pads: Any = 0, largest: bool,
    count_include_pad: bool = False, **_: Any,
) -> Any:  # fmt: skip
    """Pool (n, c, h, w) by the maximum or the mean of the taps."""
    kernel = pair(kernel)
    strides = pair(strides)
    low = -xp.inf if largest else 0.0
    source = padded(xp, x, pads, low)
    oh, ow = ((source.shape[2 + i] - k) // strides[i] + 1 for i, k in enumerate(kernel))
    total = None
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            tap = source[:, :, i : i + oh * strides[0] : strides[0],
                         j : j + ow * strides[1] : strides[1]][:, :, :oh, :ow]  # fmt: skip
            if total is None:
                total = tap.copy()
            elif largest:
                xp.maximum(total, tap, out=total)
            else:
                total += tap
    if largest or not any(map(any, borders(pads))) or count_include_pad:
        return total if largest else total / (kernel[0] * kernel[1])
    ones = xp.ones((1, 1, *x.shape[2:]), x.dtype)
    counts = pool(xp, ones, kernel=kernel, strides=strides, pads=pads, largest=False,
                  count_include_pad=True)  # fmt: skip
    return total / (counts * (kernel[0] * kernel[1]))


def softmax(xp: Any, x: Any, *, axis: int = -1) -> Any:
    """Exponentials over their sum."""
    e = xp.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def layer_norm(
    xp: Any, x: Any, scale: Any, bias: Any, *, axis: int = -1, epsilon: float = 1e-5
) -> Any:
    """Normalise the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / xp.sqrt(variance + x.dtype.type(epsilon)) * scale + bias


def gelu(xp: Any, x: Any, *, approximate: str = "tanh") -> Any:
    """The approximation with tanh."""
    return 0.5 * x * (1 + xp.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + xp.exp(-x))


def pad(
    xp: Any, x: Any, *, pads: Any, mode: str = "constant", value: float = 0, axes: Any = None
) -> Any:
    """Pad all axes; `pads` as in ONNX, befores then afters."""
    n = x.ndim
    widths = [(pads[i], pads[i + n]) for i in range(n)]
    if mode == "constant":
        return xp.pad(x, widths, constant_values=value)
    return xp.pad(x, widths, mode=mode)


def _slice(xp: Any, x: Any, *, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    cut = [slice(None)] * x.ndim
    chosen = range(len(starts)) if axes is None else axes
    for k, axis in enumerate(chosen):
        cut[axis] = slice(starts[k], ends[k], None if steps is None else steps[k])
    return x[tuple(cut)]


def _reduction(name: str) -> Callable[..., Any]:
    def reduce(xp: Any, x: Any, *, axes: Any = None, keepdims: bool = False) -> Any:
        axis = axes if axes is None or isinstance(axes, int) else tuple(axes)
        return getattr(xp, name)(x, axis=axis, keepdims=keepdims)

    return reduce


def _ufunc(name: str) -> Callable[..., Any]:
    return lambda xp, *arrays: getattr(xp, name)(*arrays)


_UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "sqrt": "sqrt",
    "square": "square", "exp": "exp", "log": "log", "tanh": "tanh", "maximum": "maximum",
    "minimum": "minimum", "matmul": "matmul", "abs": "abs", "neg": "negative",
}  # fmt: skip

TABLE: Mapping[str, Callable[..., Any]] = {
    **{name: _ufunc(function) for name, function in _UFUNCS.items()},
    "relu": lambda xp, x: xp.maximum(x, 0),
    "sigmoid": sigmoid,
    "clip": lambda xp, x, low, high: xp.clip(x, low, high),
    "softmax": softmax,
    "layer_norm": layer_norm,
    "gelu": gelu,
    "conv2d": conv2d,
    "max_pool": lambda xp, x, **attrs: pool(xp, x, largest=True, **attrs),
    "average_pool": lambda xp, x, **attrs: pool(xp, x, largest=False, **attrs),
    "global_average_pool": lambda xp, x: x.mean(axis=(2, 3), keepdims=True),
    "concat": lambda xp, *arrays, axis: xp.concatenate(arrays, axis=axis),
    "reshape": lambda xp, x, *, shape: x.reshape(shape),
    "flatten": lambda xp, x, *, axis=1: x.reshape(x.shape[0], -1),
    "transpose": lambda xp, x, *, axes=None: x.transpose(axes),
    "gather": lambda xp, x, indices, *, axis=0: xp.take(x, indices, axis=axis),
    "slice": _slice,
    "pad": pad,
    "reduce_sum": _reduction("sum"),
    "reduce_max": _reduction("max"),
    "reduce_mean": _reduction("mean"),
    "argmax": lambda xp, x, *, axis=0, **_: xp.argmax(x, axis=axis),
}
