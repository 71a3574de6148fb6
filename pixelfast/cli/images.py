"""Integers of images to and from the pictures that people look at."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.grid import grid

FRAME_MILLISECONDS = 80
LAST_FRAME_MILLISECONDS = 2000


def write_png(stream: BinaryIO, images: np.ndarray, levels: int, columns: int | None = None) -> None:
    """One PNG grid of integers (N, C, H, W)."""
    grid(images, levels, columns).save(stream, format="PNG")


def write_gif(stream: BinaryIO, images: np.ndarray, levels: int, given: np.ndarray | None = None) -> None:
    """An animated GIF of the images (N, C, H, W) appearing row by row, in the order they were sampled in.

    given: bool, broadcast to the images: what was known from the start.
    """
    known = np.zeros(1, bool) if given is None else given
    below = np.arange(images.shape[2])[:, None]
    frames = [
        grid(np.where((below < y) | known, images, 0), levels).convert("P", palette=Image.Palette.ADAPTIVE)
        for y in range(images.shape[2] + 1)
    ]
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_FRAME_MILLISECONDS]
    frames[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        optimize=False,
    )


def read_image(path: str | Path, shape: tuple[int, int, int], levels: int) -> np.ndarray:
    """A picture file as integers (1, C, H, W) of a model's shape and levels, int64.

    Raises PixelfastError for a file that cannot be read, ShapeError for another size.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise ShapeError(f"a picture has 1 or 3 channels, the model {channels}")
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except UnidentifiedImageError as error:
        raise PixelfastError(f"{path} is not a picture that can be read; PNG is the safest") from error
    except OSError as error:
        raise PixelfastError(f"cannot read {path}: {error.strerror or error}") from error
    if pixels.shape[:2] != (height, width):
        raise ShapeError(f"{path} is {pixels.shape[1]}x{pixels.shape[0]} pixels, the model makes {width}x{height}")
    integers = np.rint(pixels.reshape(height, width, channels) * ((levels - 1) / 255)).astype(np.int64)
    return integers.transpose(2, 0, 1)[None]
