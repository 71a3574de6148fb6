"""Windows and running sums that look backwards only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv
from .registry import idiom


@idiom()
class MaxPoolWindow(nn.Module):
    """The largest of a window above and to the left."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        pooled = F.max_pool2d(F.pad(h, (1, 0, 2, 0), value=-10.0), (3, 2), stride=1)
        return self.head(torch.cat([h, pooled], dim=1))


@idiom()
class AveragePoolWindow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.avg_pool2d(F.pad(self.stem(x), (2, 0, 1, 0)), (2, 3), stride=1)
        return self.head(torch.relu(h))


@idiom((1, 4, 6))
class PoolingWithStride(nn.Module):
    """2x2 pooling of features shifted by a whole square, brought up again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.stem(x))
        shifted = F.pad(h, (0, 0, 2, 0))[:, :, :-2]
        low = torch.cat([F.max_pool2d(shifted, 2), F.avg_pool2d(shifted, 2)], dim=1)
        return self.head(torch.cat([h, F.interpolate(low, scale_factor=2)], dim=1))


@idiom()
class PoolingWithPadding(nn.Module):
    """Centred windows with the pooling's own padding, their result shifted down by two rows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        largest = F.max_pool2d(h, 3, stride=1, padding=1)
        mean = F.avg_pool2d(h, 3, stride=1, padding=1, count_include_pad=False)
        return self.head(torch.cat([h, F.pad(torch.cat([largest, mean], dim=1), (0, 0, 2, -2))], dim=1))


@idiom()
class MeanOfTheRowsAbove(nn.Module):
    """Sums over rows before this one, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, (1, 3), padding=(0, 1))
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv(x))
        rows = [torch.zeros_like(h[:, :, 0])]
        for y in range(1, x.shape[2]):
            rows.append(h[:, :, :y].mean(dim=2))
        return self.head(torch.stack(rows, dim=2))


@idiom()
class MaximumOfTheLeft(nn.Module):
    """A running maximum along the row, strictly to the left."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        columns = [torch.zeros_like(h[..., 0])]
        for i in range(1, x.shape[3]):
            columns.append(torch.maximum(columns[-1], h[..., i - 1]))
        return self.head(torch.stack(columns, dim=-1))
