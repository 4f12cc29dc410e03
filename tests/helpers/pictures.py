"""Lines of text as pictures, and what an OCR does around its networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Picture = np.ndarray[Any, Any]


def text_picture(lines: Sequence[str], width: int, height: int, *, size: int = 32) -> Picture:
    """Black text on white, (height, width, 3) uint8."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size)  # comes with Pillow
    step = height // len(lines)
    for i, line in enumerate(lines):
        draw.text((24, i * step + (step - size) // 2), line, fill="black", font=font)
    return np.asarray(image)


def as_input(picture: Picture, mean: float = 0.5, std: float = 0.5) -> Picture:
    """(1, 3, height, width) float32 with the channels in the order blue, green, red."""
    scaled = (picture[..., ::-1].astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def text_boxes(probability: Picture, threshold: float = 0.3) -> list[tuple[slice, slice]]:
    """Rows and columns of each connected region, from top to bottom, grown to the whole line.

    The network marks a kernel of each line; it grows by 1.6 area / perimeter (Liao et al.,
    "Real-time scene text detection with differentiable binarization", 2020, section 3.4).
    """
    from scipy import ndimage

    regions, _ = ndimage.label(probability > threshold)
    boxes = []
    for rows, columns in ndimage.find_objects(regions):
        high, wide = rows.stop - rows.start, columns.stop - columns.start
        grow = round(1.6 * high * wide / (2 * (high + wide)))
        boxes.append(
            (
                slice(max(0, rows.start - grow), rows.stop + grow),
                slice(max(0, columns.start - grow), columns.stop + grow),
            )
        )
    return sorted(boxes, key=lambda box: (box[0].start, box[1].start))


def scaled_to(picture: Picture, height: int, width: int) -> Picture:
    """Scale to the height, keep the proportions, fill up on the right with grey (0 as input)."""
    wide = min(width, max(1, round(picture.shape[1] * height / picture.shape[0])))
    scaled = Image.fromarray(picture).resize((wide, height), Image.Resampling.BILINEAR)
    whole = np.zeros((1, 3, height, width), np.float32)
    whole[..., :wide] = as_input(np.asarray(scaled))
    return whole


def read_ctc(probabilities: Picture, characters: Sequence[str]) -> str:
    """The best label of each frame, repeats joined, blanks (label 0) dropped: greedy CTC."""
    labels = probabilities.argmax(-1)
    kept = [n for i, n in enumerate(labels) if n and (i == 0 or n != labels[i - 1])]
    return "".join(characters[n - 1] for n in kept)
