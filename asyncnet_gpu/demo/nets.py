"""The two nets of the demo, from the GrCUDA benchmark suite (Parravicini et al., IPDPS 2021).

`image_net` is its workload IMG: two blurs of different width, the edges of both as masks, an
unsharpened picture, all combined. `ensemble_net` is its workload ML: ridge regression and naive
Bayes side by side, averaged.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.blob import Blob
from asyncnet_gpu.net import AsyncNet

Array = np.ndarray[Any, Any]

_SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)


def gaussian(size: int, variance: float) -> Array:
    """Return a normalised Gaussian of shape (size, size), float32."""
    x = np.arange(size) - size // 2
    bell = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * variance))
    normal: Array = (bell / bell.sum()).astype(np.float32)
    return normal


def _filter(net: AsyncNet, x: Blob, weights: Array, name: str) -> Blob:
    """Correlate every channel with `weights`; edges are repeated outwards."""
    radius = weights.shape[0] // 2
    channels = x.shape[1]
    padded = net.pad(x, pads=(0, 0, radius, radius) * 2, mode="edge", name=f"{name}.pad")
    taps = np.broadcast_to(weights, (channels, 1, *weights.shape))
    made: Blob = net.conv2d(padded, net.constant(taps), groups=channels, name=name)
    return made


def _edges(net: AsyncNet, x: Blob, name: str) -> Blob:
    """Length of the Sobel gradient."""
    across = _filter(net, x, _SOBEL, f"{name}.x")
    along = _filter(net, x, _SOBEL.T.copy(), f"{name}.y")
    made: Blob = net.sqrt(across * across + along * along, name=name)
    return made


def _stretch(net: AsyncNet, x: Blob, name: str) -> Blob:
    """Map the range of `x` to [0, 5] and clip to [0, 1]: a mask."""

    def stretch(xp: Any, image: Any, out: Any) -> None:
        low, high = image.min(), image.max()
        xp.subtract(image, low, out=out)
        xp.multiply(out, 5.0 / (high - low), out=out)
        xp.clip(out, 0.0, 1.0, out=out)

    made: Blob = net.call(stretch, x, shape=x.shape, dtype=x.dtype, name=name)
    return made


def image_net(shape: tuple[int, ...]) -> AsyncNet:
    """Sharpen what is an edge, soften the rest.

    Parameters
    ----------
    shape
        (1, channels, height, width) of input "image", float32 in [0, 1]; output "picture" has it
        too.
    """
    net = AsyncNet("image")
    image = net.input("image", shape, "float32")
    small = _filter(net, image, gaussian(3, 1.0), "blur_small")
    small_edges = _edges(net, small, "edges_small")
    large = _filter(net, image, gaussian(5, 10.0), "blur_large")
    mask = _stretch(net, _edges(net, large, "edges_large"), "mask_large")
    soft = _filter(net, image, gaussian(3, 5.0), "blur_unsharpen")
    sharp = net.clip(image * 1.5 - soft * 0.5, low=0.0, high=1.0, name="unsharpen")
    first = net.add(sharp * mask, large * (1.0 - mask), name="combine_large")
    edge = net.clip(small_edges, low=0.0, high=1.0)
    net.output(net.add(first * edge, small * (1.0 - edge), name="picture"))
    return net


def ensemble_net(n_rows: int, ridge: tuple[Array, Array], bayes: tuple[Array, Array]) -> AsyncNet:
    """Average the probabilities of ridge regression and multinomial naive Bayes.

    Parameters
    ----------
    ridge
        Weights (features, classes) and intercepts (classes,), float32.
    bayes
        Log probabilities of features (features, classes) and log priors (classes,), float32.
    """
    net = AsyncNet("ensemble")
    n_features = ridge[0].shape[0]
    x = net.input("x", (n_rows, n_features), "float32")
    scores = net.matmul(x, net.parameter("ridge.w", ridge[0]), name="ridge.scores")
    one = net.softmax(net.add(scores, net.parameter("ridge.b", ridge[1])), axis=1, name="ridge")
    likely = net.matmul(x, net.parameter("bayes.w", bayes[0]), name="bayes.likely")
    two = net.softmax(net.add(likely, net.parameter("bayes.b", bayes[1])), axis=1, name="bayes")
    net.output(net.mul(one + two, 0.5, name="probability"))
    return net
