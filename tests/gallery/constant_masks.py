"""Values, rather than weights, that a constant mask takes away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv
from .registry import idiom


@idiom()
class WhereUnderAMask(nn.Module):
    """Two ways to compute a feature, a checkerboard that chooses; the future is chosen away."""

    def __init__(self) -> None:
        super().__init__()
        self.causal = MaskedConv("A", 1, 4)
        self.leaky = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows = torch.arange(height)[:, None]
        odd = (rows + torch.arange(width)) % 2 == 1
        never = rows.expand(height, width) < 0
        h = torch.where(odd, self.causal(x), torch.sigmoid(self.causal(x)))
        return self.head(torch.where(never, self.leaky(x), h))


@idiom()
class MaskedFillOfValues(nn.Module):
    """What looks ahead is filled with a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, (1, 2))
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(F.pad(x, (2, -1)))
        first = torch.zeros(x.shape[2:], dtype=torch.bool)
        first[:, 0] = True
        return self.head(torch.relu(h.masked_fill(first, -0.5)).masked_fill(first.logical_not() & first, 9.0))


@idiom()
class ProductWithZeros(nn.Module):
    """A full matrix of pairwise differences, multiplied by a triangle of zeros and summed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))
        self.head = nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        row = x[:, 0]
        pairs = torch.tanh(row[..., None, :] - self.weight) * torch.ones(5, 5).tril(-1).to(x)
        return self.head(torch.stack([pairs.sum(-1), pairs.amax(-1)], dim=1))


@idiom()
class SelectedFeatures(nn.Module):
    """Features picked by a boolean mask and by index_select."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 6)
        self.head = nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.stem(x))
        chosen = h[:, torch.tensor([True, False, True, True, False, False])]
        return self.head(torch.cat([chosen, h.index_select(1, torch.tensor([4, 0]))], dim=1))
