"""What one pixel's parameters depend on, followed back through the graph; and a picture of it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from .ir import Graph, Span, reads

CELL = 12
"""Side of a pixel in the picture, with its grid line."""

COLOURS = {
    "the pixel": (32, 32, 32),
    "read": (70, 130, 200),
    "known, not read": (245, 180, 80),
    "read, not known": (200, 40, 40),
    "not known": (235, 235, 235),
}
LINE = (255, 255, 255)
LEGEND_ROW = 16
LEGEND_WIDTH = 150


def receptive_field(graph: Graph, row: int, column: int) -> np.ndarray:
    """Which inputs reach the parameters of the numbers at one pixel: bool (C, H, W).

    Exact as to positions: an input that is not marked has no path to the outputs whose every weight differs from zero.
    """
    reached = {value.index: np.zeros(value.sites, dtype=bool) for value in graph.values}
    fresh: dict[int, np.ndarray] = {}  # sites of a value that were reached since its node was last followed

    def reach(value: int, sites: np.ndarray) -> None:
        found = np.zeros_like(reached[value])
        found[sites[sites >= 0]] = True
        found &= ~reached[value]
        if found.any():
            reached[value] |= found
            fresh[value] = fresh[value] | found if value in fresh else found

    for value in graph.outputs:
        reach(value, np.array([row * graph.shape[2] + column]))
    # Once, but for a recurrence, whose nodes read each other.
    while any(node.out in fresh for node in graph.nodes):
        for node in reversed(graph.nodes):
            readers = fresh.pop(node.out, None)
            if readers is None:
                continue
            for source in reads(node):
                read = np.repeat(readers, np.diff(source.first)) if isinstance(source, Span) else readers
                reach(source.value, source.sites[read])
    return np.stack([reached[value] for value in graph.inputs]).reshape(graph.shape)


def plot(field: np.ndarray, row: int, column: int, file: str | Path | BinaryIO) -> None:
    """Writes a PNG: the pixel, what it reads, and what is known by then but not read (a blind spot, or too far away).

    field: bool (H, W). Read but not known by then: a leak, in red.
    """
    from PIL import Image, ImageDraw  # here, so that importing the engine does not load it

    height, width = field.shape
    known = np.arange(height * width).reshape(height, width) < row * width + column
    size = max(width * CELL + 1, LEGEND_WIDTH), height * CELL + 1 + LEGEND_ROW * len(COLOURS)
    picture = Image.new("RGB", size, LINE)
    draw = ImageDraw.Draw(picture)
    for y in range(height):
        for x in range(width):
            colour = COLOURS[_name(bool(field[y, x]), bool(known[y, x]), (y, x) == (row, column))]
            draw.rectangle((x * CELL + 1, y * CELL + 1, (x + 1) * CELL - 1, (y + 1) * CELL - 1), fill=colour)
    for index, (name, colour) in enumerate(COLOURS.items()):
        top = height * CELL + 1 + index * LEGEND_ROW
        draw.rectangle((2, top + 3, 2 + CELL - 2, top + 3 + CELL - 2), fill=colour)
        draw.text((CELL + 8, top + 2), name, fill=COLOURS["the pixel"])
    picture.save(file, format="PNG")


def _name(read: bool, known: bool, itself: bool) -> str:
    if itself:
        return "the pixel"
    if read:
        return "read" if known else "read, not known"
    return "known, not read" if known else "not known"
