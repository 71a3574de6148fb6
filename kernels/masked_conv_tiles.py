"""Block sizes of the convolutions' programs, as pure functions of the problem."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """What a program computes: outputs by positions, `inputs` at a time in the sum.

    For the gradient of the weight: outputs by inputs, `positions` at a time.
    """

    outputs: int
    positions: int
    inputs: int
    warps: int
    stages: int


# By whether numbers are 16 bits wide, from the largest number of outputs down. Registers set the sizes: addresses of a
# tile's numbers and the activation take about as many as the sums. Float32 in full precision is multiplied on the
# ordinary cores, whose operands take registers, too.
_CONV = {
    True: (Tile(64, 64, 32, 8, 3), Tile(32, 64, 32, 4, 3)),
    False: (Tile(64, 32, 16, 4, 2), Tile(32, 64, 16, 4, 2)),
}
_CONV_GRADIENT = {
    True: (Tile(64, 64, 32, 8, 3), Tile(32, 64, 32, 4, 3)),
    False: (Tile(32, 64, 16, 4, 2),),
}
_WEIGHT_GRADIENT = {
    True: (Tile(64, 64, 32, 8, 3), Tile(32, 64, 32, 4, 3)),
    False: (Tile(32, 32, 16, 4, 2),),
}
PROGRAMS_WANTED = 512
"""Enough to give every multiprocessor a few."""
MOST_SPLITS = 64


def conv_tile(outputs: int, half: bool) -> Tile:
    """Of the convolution."""
    return _fitting(_CONV[half], outputs)


def conv_gradient_tile(units: int, half: bool) -> Tile:
    """Of the gradient of its input; here the outputs are channels, or features of a gate."""
    return _fitting(_CONV_GRADIENT[half], units)


def weight_gradient_tile(outputs: int, half: bool) -> Tile:
    """Of the gradient of the weight."""
    return _fitting(_WEIGHT_GRADIENT[half], outputs)


def splits(programs: int, positions: int) -> int:
    """Into how many sums over positions a weight gradient is split, where it takes `programs` without."""
    return max(1, min(MOST_SPLITS, PROGRAMS_WANTED // programs, positions // 512))


def _fitting(tiles: tuple[Tile, ...], outputs: int) -> Tile:
    """The smallest that holds all outputs, else the largest."""
    return next((tile for tile in reversed(tiles) if tile.outputs >= outputs), tiles[0])
