"""Positions fed to the network: coordinates, learned maps, rows and columns of ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .causal import MaskedConv
from .registry import idiom


@idiom()
class CoordinatesConcatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 3)
        self.head = nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        rows = torch.linspace(-1, 1, height, dtype=x.dtype).view(1, 1, -1, 1).expand(n, 1, height, width)
        columns = (torch.arange(width, dtype=x.dtype) / width).view(1, 1, 1, -1).repeat(n, 1, height, 1)
        return self.head(torch.cat([torch.relu(self.stem(x)), rows, columns], dim=1))


@idiom()
class CoordinatesInFrontOfTheStem(nn.Module):
    """A masked convolution of image and coordinates together."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(MaskedConv("A", 3, 5), nn.ReLU(), MaskedConv("B", 5, 4))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = torch.meshgrid(
            torch.arange(x.shape[2], dtype=x.dtype), torch.arange(x.shape[3], dtype=x.dtype), indexing="ij"
        )
        grid = torch.stack([rows, columns])[None] / 5 - 0.5
        return self.net(torch.cat([x, grid.expand(len(x), -1, -1, -1)], dim=1))


@idiom()
class LearnedPositions(nn.Module):
    """A parameter per row, column and position, added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.rows = nn.Parameter(torch.randn(1, 4, 4, 1))
        self.columns = nn.Embedding(5, 4)
        self.everywhere = nn.Parameter(torch.randn(4, 4, 5))
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.columns(torch.arange(x.shape[3])).T[None, :, None]
        return self.head(torch.tanh(self.stem(x) + self.rows + columns) * self.everywhere)


@idiom()
class Sinusoids(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        position = torch.arange(20, dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.125], dtype=x.dtype)
        code = torch.cat([position.sin(), position.cos()], dim=1).T.reshape(1, 4, 4, 5)
        return self.head(torch.relu(h + code))


@idiom()
class OnesChannel(nn.Module):
    """A channel of ones beside the image tells padding from values."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(MaskedConv("A", 2, 5), nn.ReLU(), MaskedConv("B", 5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))


@idiom()
class PaddedWithTheEdge(nn.Module):
    """Replication above and to the left of features that are strict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.conv = nn.Conv2d(4, 4, (2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(torch.relu(self.stem(x)), (2, 0, 1, 0), mode="replicate"))


@idiom()
class PaddedWithAValue(nn.Module):
    """Constant padding other than zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, (2, 3))
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        above = nn.functional.pad(x, (1, 1, 2, 0), value=0.5)[:, :, :-1]
        return self.head(torch.relu(self.conv(above)))
