"""Channels of a pixel conditioned on each other, by masks on groups of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelfast import Categorical

from .causal import raster_mask
from .registry import idiom


def group_mask(kind: str, groups_in: Tensor, groups_out: Tensor, size: int) -> Tensor:
    """(out, in, size, size): raster mask, with the centre open to lower groups (kind "A") or also one's own."""
    before = raster_mask("A", size, size).expand(len(groups_out), len(groups_in), -1, -1).clone()
    allowed = groups_in[None] < groups_out[:, None] if kind == "A" else groups_in[None] <= groups_out[:, None]
    before[:, :, size // 2, size // 2] = allowed.float()
    return before


class GroupConv(nn.Conv2d):
    def __init__(self, kind: str, groups_in: Tensor, groups_out: Tensor, size: int) -> None:
        super().__init__(len(groups_in), len(groups_out), size, padding=size // 2)
        self.register_buffer("mask", group_mask(kind, groups_in, groups_out, size))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


def network(features: Tensor, outputs: Tensor) -> nn.Sequential:
    return nn.Sequential(
        GroupConv("A", torch.arange(3), features, 3),
        nn.ReLU(),
        GroupConv("B", features, features, 3),
        nn.ReLU(),
        GroupConv("B", features, outputs, 1),
    )


@idiom((3, 3, 4), Categorical(3))
class ContiguousGroups(nn.Module):
    """Features R R G G B B; outputs all of R's levels, then G's, then B's."""

    def __init__(self) -> None:
        super().__init__()
        thirds = torch.arange(3)
        self.net = network(thirds.repeat_interleave(2), thirds.repeat_interleave(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).view(len(x), 3, 3, *x.shape[2:]).transpose(1, 2)


@idiom((3, 3, 4), Categorical(3))
class InterleavedGroups(nn.Module):
    """Features R G B R G B; the channel is the fast index of the output."""

    def __init__(self) -> None:
        super().__init__()
        thirds = torch.arange(3)
        self.net = network(thirds.repeat(2), thirds.repeat(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).view(len(x), 3, 3, *x.shape[2:])


@idiom((3, 3, 4), Categorical(3))
class UnequalGroups(nn.Module):
    """One feature of R, two of G, three of B, shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(torch.tensor([2, 1, 2, 0, 1, 2]), torch.arange(3).repeat(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).unflatten(1, (3, 3))


@idiom((2, 3, 4), Categorical(3))
class IndependentChannels(nn.Module):
    """Nothing of a pixel is read: its channels are drawn from one reading of what precedes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.register_buffer("mask", raster_mask("A", 3, 3))
        self.head = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.first.weight * self.mask
        h = torch.relu(nn.functional.conv2d(x, weight, self.first.bias, padding=1))
        return self.head(h).reshape(len(x), 3, 2, *x.shape[2:])


@idiom((2, 3, 4), Categorical(3))
class ChannelByChannel(nn.Module):
    """One small head per channel, the later one fed with the earlier channel's value."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 5, (2, 3))
        self.heads = nn.ModuleList([nn.Conv2d(5, 3, 1), nn.Conv2d(6, 3, 1)])

    def forward(self, x: Tensor) -> Tensor:
        above = nn.functional.pad(x, (1, 1, 2, 0))[:, :, :-1]
        h = torch.tanh(self.first(above))
        return torch.stack([self.heads[0](h), self.heads[1](torch.cat([h, x[:, :1]], 1))], dim=2)
