"""Causality by masked weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv, raster_mask
from .registry import idiom


@idiom()
class MaskMultiplied(nn.Module):
    """The weight times a mask in the call of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            MaskedConv("A", 1, 6, 5), nn.ReLU(), MaskedConv("B", 6, 6), nn.ReLU(), MaskedConv("B", 6, 4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class ZeroedConv(nn.Conv2d):
    """The weight itself is overwritten in every forward."""

    def __init__(self, kind: str, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2, bias=False)
        self.register_buffer("mask", raster_mask(kind, size, size).expand_as(self.weight).clone())

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data *= self.mask
        return super().forward(x)


@idiom()
class MaskZeroedInPlace(nn.Module):
    """weight.data *= mask inside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(ZeroedConv("A", 1, 5, 3), nn.PReLU(), ZeroedConv("B", 5, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@idiom()
class MaskBuiltOnTheFly(nn.Module):
    """A mask of ones, with slices of it zeroed, made in every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 1, 3, 3))
        self.head = nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones_like(self.weight)
        mask[:, :, 1, 1:] = 0
        mask[:, :, 2:] = 0
        return self.head(F.relu(F.conv2d(x, self.weight * mask, padding=1)))


@idiom()
class MaskFilled(nn.Module):
    """masked_fill of the weight with a boolean mask, in place and not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 5, 3, padding=1)
        self.second = nn.Conv2d(5, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        future = raster_mask("A", 3, 3) == 0
        self.first.weight.data.masked_fill_(future, 0.0)
        weight = self.second.weight.masked_fill(raster_mask("B", 3, 3) == 0, 0.0)
        return F.conv2d(torch.tanh(self.first(x)), weight, self.second.bias, padding=1)


@idiom()
class MaskByTril(nn.Module):
    """A row-wise lower triangle of a linear layer over a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(20, 20))
        self.second = nn.Parameter(torch.randn(4, 20, 20))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(x.flatten(1) @ torch.tril(self.first, -1).T)
        return torch.stack([h @ torch.tril(w).T for w in self.second], dim=1).view(-1, 4, 4, 5)
