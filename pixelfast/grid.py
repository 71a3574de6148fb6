"""A batch of images as one picture."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from pixelfast.errors import ShapeError


def grid(images: np.ndarray, levels: int, columns: int | None = None) -> Image.Image:
    """Integers (N, C, H, W), C = 1 or 3, as one picture: rows of images, one pixel of border between them.

    A single image has no border, so that it can be read back. Levels 0 .. levels - 1 become 0 .. 255. columns: images
    in a row; about as many as there are rows unless given.
    """
    count, channels, height, width = images.shape
    if channels not in (1, 3):
        raise ShapeError(f"a picture has 1 or 3 channels, these images have {channels}: use --npz")
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    gap = 1 if count > 1 else 0
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 96, np.uint8)
    scaled = np.rint(images.astype(np.float64) * (255 / (levels - 1))).astype(np.uint8)
    for i, image in enumerate(scaled):
        top = gap + i // columns * (height + gap)
        left = gap + i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)
