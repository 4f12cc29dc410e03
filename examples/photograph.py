# Run with:  python examples/photograph.py [PHOTO.jpg] [--backend cpu|cuda] [--out FOLDER]
# Needs Pillow and scikit-learn (which brings the photograph):  pip install "asyncnet-gpu[demo]"
"""A photograph becomes a sketch, a sharpened picture and a thumbnail: three branches of one net."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import asyncnet_gpu as ag

SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
BLUR = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]).astype(np.float32) / 256


def correlate(net: ag.AsyncNet, image: ag.Blob, weights: np.ndarray, name: str) -> ag.Blob:
    """Correlate each channel with `weights`, repeating the edge outwards."""
    radius, channels = weights.shape[0] // 2, image.shape[1]
    padded = net.pad(image, pads=(0, 0, radius, radius) * 2, mode="edge")
    taps = np.broadcast_to(weights, (channels, 1, *weights.shape))
    return net.conv2d(padded, taps, groups=channels, name=name)


def make_net(height: int, width: int) -> ag.AsyncNet:
    """Return the net for an image of shape (1, 3, height, width), float32 in [0, 1]."""
    net = ag.AsyncNet("photograph")
    image = net.input("image", (1, 3, height, width), "float32")

    across = correlate(net, image, SOBEL, "across")
    down = correlate(net, image, np.ascontiguousarray(SOBEL.T), "down")
    edges = net.sqrt(across * across + down * down, name="edges")
    net.output(net.clip(1.0 - edges, low=0.0, high=1.0, name="sketch"))

    soft = correlate(net, image, BLUR, "soft")
    net.output(net.clip(image * 2.0 - soft, low=0.0, high=1.0, name="sharp"))

    net.output(net.average_pool(image, kernel=(4, 4), strides=(4, 4), name="thumbnail"))
    return net


def load(path: Path | None) -> np.ndarray:
    """Return a photograph as (1, 3, height, width) float32 in [0, 1], sides multiples of 4."""
    if path is None:
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image("china.jpg")
    else:
        from PIL import Image

        pixels = np.asarray(Image.open(path).convert("RGB"))
    height, width = (extent - extent % 4 for extent in pixels.shape[:2])
    planes = pixels[:height, :width].transpose(2, 0, 1)[None]
    return np.ascontiguousarray(planes, np.float32) / 255


def save(image: Any, path: Path) -> None:
    """Write (1, 3, height, width) float32 in [0, 1] as a picture."""
    from PIL import Image

    pixels = (ag.to_numpy(image)[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def main(
    backend: str = "cpu", photo: Path | None = None, out: Path = Path("build/photograph")
) -> dict[str, Any]:
    """Write sketch.png, sharp.png and thumbnail.png into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    image = load(photo)
    with make_net(*image.shape[2:]).compile(backend=backend, mode="streams") as exe:
        pictures = exe.run(image=image)
        print(exe)
    for name, picture in pictures.items():
        save(picture, out / f"{name}.png")
        print(out / f"{name}.png", picture.shape)
    return {"image": image, **pictures}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path)
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=Path("build/photograph"))
    arguments = parser.parse_args()
    main(arguments.backend, arguments.photo, arguments.out)
