"""Kinds of convolution: dilated, grouped, depthwise, one-dimensional."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv
from .registry import idiom


@idiom((1, 5, 6))
def dilated() -> nn.Module:
    return nn.Sequential(
        MaskedConv("A", 1, 4),
        nn.ReLU(),
        MaskedConv("B", 4, 4, dilation=2),
        nn.ReLU(),
        MaskedConv("B", 4, 4, dilation=4),
    )


@idiom()
def grouped() -> nn.Module:
    return nn.Sequential(
        MaskedConv("A", 1, 6), nn.ReLU(), MaskedConv("B", 6, 6, groups=2), nn.Tanh(), nn.Conv2d(6, 4, 1, groups=2)
    )


@idiom()
def depthwise_separable() -> nn.Module:
    return nn.Sequential(
        MaskedConv("A", 1, 5), nn.ReLU(), MaskedConv("B", 5, 10, groups=5), nn.Conv2d(10, 4, 1), nn.ELU()
    )


@idiom()
class ChannelShuffle(nn.Module):
    """Grouped convolutions with their features shuffled between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 6)
        self.net = nn.Sequential(nn.Conv2d(6, 6, 1, groups=3), nn.ChannelShuffle(3), nn.ReLU(), nn.Conv2d(6, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.stem(x))


@idiom()
class GroupedTransposed(nn.Module):
    """A transposed convolution with stride 1 and groups, cropped below and to the right."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.conv = nn.ConvTranspose2d(4, 4, (2, 3), groups=2, padding=(0, 0), dilation=(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu(self.stem(x)))[:, :, : x.shape[2], : x.shape[3]]


@idiom()
class Conv1dOverPixels(nn.Module):
    """The image as one sequence, a dilated causal convolution over it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 4, 3)
        self.second = nn.Conv1d(4, 4, 2, dilation=3)

    def forward(self, x: Tensor) -> Tensor:
        sequence = F.pad(x.flatten(2), (3, -1))
        h = torch.relu(self.first(sequence))
        return self.second(F.pad(h, (3, 0))).view(len(x), 4, *x.shape[2:])


@idiom()
class Conv1dOverRows(nn.Module):
    """Each row a sequence of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 4, 2)
        self.head = nn.Conv1d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        rows = x.permute(0, 2, 1, 3).reshape(n * height, 1, width)
        h = self.head(torch.tanh(self.first(F.pad(rows, (2, -1)))))
        return h.reshape(n, height, 4, width).permute(0, 2, 1, 3)


@idiom()
class UnfoldPatches(nn.Module):
    """im2col by F.unfold and one matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(F.pad(x, (1, 1, 2, 0))[:, :, :-1], (2, 3))
        return self.linear(patches.transpose(1, 2)).transpose(1, 2).reshape(len(x), 4, *x.shape[2:])


@idiom()
class SlidingWindows(nn.Module):
    """im2col by Tensor.unfold and einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        windows = F.pad(x[:, 0], (3, -1)).unfold(2, 3, 1)
        return torch.einsum("nhwk,ok->nohw", windows, self.weight)
