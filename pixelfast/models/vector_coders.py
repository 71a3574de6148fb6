"""Between images, or maps of features, and vectors: the ends of autoencoders whose latents have no place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast.errors import ShapeError
from pixelfast.models import checks
from pixelfast.models.autoencoder_parts import Decoder, Encoder

NETWORKS = ("convolutional", "mlp")
MAX_HALVINGS = 8


@dataclass(frozen=True)
class Coding:
    """What encoder and decoder consist of.

    network: "convolutional" (`autoencoder_parts`, and a linear layer to or from the vector) or "mlp" (linear layers
    and ReLU). hidden: features of a map, or of a layer. halvings: how often a convolutional encoder halves height and
    width. blocks: residual blocks there, or hidden layers of an mlp. Raises PixelfastError for anything else.
    """

    network: str = "convolutional"
    hidden: int = 64
    blocks: int = 1
    halvings: int = 2

    def __post_init__(self) -> None:
        checks.choice("network", self.network, NETWORKS)
        checks.integer("hidden", self.hidden, 1, checks.MAX_WIDTH)
        checks.integer("blocks", self.blocks, 0 if self.network == "convolutional" else 1, 128)
        checks.integer("halvings", self.halvings, 1, MAX_HALVINGS)

    def encoder(self, shape: Sequence[int], width: int) -> nn.Module:
        """Images float (N, C, H, W) -> (N, width, 1, 1)."""
        channels, rows, columns = shape
        if self.network == "mlp":
            return _Mlp((channels * rows * columns, *[self.hidden] * self.blocks, width), (width, 1, 1))
        small = halved(rows, columns, self.halvings)
        features = Encoder(channels, self.hidden, self.blocks, self.hidden, self.hidden, self.halvings)
        return nn.Sequential(features, nn.ReLU(), Flat((self.hidden, *small), width))

    def decoder(self, width: int, shape: Sequence[int]) -> nn.Module:
        """(N, width, 1, 1) -> maps (N, *shape)."""
        channels, rows, columns = shape
        if self.network == "mlp":
            return _Mlp((width, *[self.hidden] * self.blocks, channels * rows * columns), (channels, rows, columns))
        small = halved(rows, columns, self.halvings)
        maps = Decoder(self.hidden, self.hidden, self.blocks, self.hidden, channels, self.halvings)
        return nn.Sequential(Unflat(width, (self.hidden, *small)), maps)


def halved(height: int, width: int, halvings: int) -> tuple[int, int]:
    """Both divided by 2**halvings. Raises ShapeError where that leaves a rest."""
    stride = 2**halvings
    if height % stride or width % stride:
        raise ShapeError(f"height and width must be multiples of {stride}, not {height}x{width}")
    return height // stride, width // stride


class Flat(nn.Module):
    """A linear layer of everything in maps (N, *shape) to (N, width, 1, 1)."""

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        channels, rows, columns = shape
        self.linear = nn.Linear(channels * rows * columns, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))[:, :, None, None]


class Unflat(nn.Module):
    """A linear layer of (N, width, 1, 1) to maps (N, *shape)."""

    def __init__(self, width: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        channels, rows, columns = shape
        self.linear = nn.Linear(width, channels * rows * columns)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).unflatten(1, self.shape)


class _Mlp(nn.Module):
    """Linear layers with ReLU in between, of everything in (N, ...) to (N, *shape)."""

    def __init__(self, widths: Sequence[int], shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for number, layer in enumerate(self.layers):
            x = layer(F.relu(x) if number else x)
        return x.unflatten(1, self.shape)
