"""Causality by shifting: pad on one side, crop on the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .registry import idiom


def down(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def right(x: Tensor) -> Tensor:
    return F.pad(x, (1, 0))[:, :, :, :-1]


@idiom()
class PadAndCropShift(nn.Module):
    """Two stacks: one that is shifted down, one that is shifted right."""

    def __init__(self) -> None:
        super().__init__()
        self.above = nn.Conv2d(1, 4, (2, 3))
        self.left = nn.Conv2d(1, 4, (1, 2))
        self.mix = nn.Conv2d(4, 4, (2, 2))
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        above = down(self.above(F.pad(x, (1, 1, 1, 0))))
        left = right(self.left(F.pad(x, (1, 0))))
        h = torch.relu(above + left)
        return self.head(torch.relu(self.mix(F.pad(h, (1, 0, 1, 0)))))


@idiom()
class PadBothSidesAndCrop(nn.Module):
    """Symmetric padding, and the surplus cut off afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.vertical = nn.Conv2d(1, 4, (2, 3), padding=(2, 1))
        self.horizontal = nn.Conv2d(1, 4, (1, 2), padding=(0, 2))
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        v = self.vertical(x)[:, :, :height]
        h = self.horizontal(x)[:, :, :, :width]
        return self.head(torch.tanh(v + h))


@idiom()
class ShiftByConcatenation(nn.Module):
    """A row, or a column, of zeros concatenated in front of all but the last."""

    def __init__(self) -> None:
        super().__init__()
        self.above = nn.Conv2d(1, 4, (1, 3), padding=(0, 1))
        self.left = nn.Conv2d(1, 4, 1)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.above(x), self.left(x)
        a = torch.cat([torch.zeros_like(a[:, :, :1]), a[:, :, :-1]], dim=2)
        b = torch.cat([b.new_zeros(*b.shape[:3], 1), b[..., :-1]], dim=3)
        return self.head(F.elu(a + b))


@idiom()
class ShiftByRoll(nn.Module):
    """torch.roll, and what wrapped round multiplied by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        keep = torch.ones(x.shape[-1], dtype=x.dtype)
        keep[0] = 0
        return self.head(torch.sigmoid(torch.roll(self.conv(x), 1, dims=-1) * keep))


@idiom()
class ZeroPadModule(nn.Module):
    """nn.ZeroPad2d with a negative side crops."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ZeroPad2d((2, -1, 0, 0)), nn.Conv2d(1, 4, (1, 2)), nn.LeakyReLU(), nn.Conv2d(4, 4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
