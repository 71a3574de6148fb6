"""The convolutional encoder and decoder that autoencoders share, after van den Oord et al. 2017, section 4.1."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), (N, hidden, h, w) to the same; `inner` features in between."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(hidden, inner, 3, padding=1)
        self.mix = nn.Conv2d(inner, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.relu(self.near(F.relu(x))))


class Encoder(nn.Module):
    """Images (N, channels, H, W) -> features (N, width, H / 2**halvings, W / 2**halvings).

    Each halving is a convolution of kernel 4 and stride 2, to half of the features in all but the last; then one of
    kernel 3, residual blocks, and one of kernel 1.
    """

    def __init__(self, channels: int, hidden: int, blocks: int, inner: int, width: int, halvings: int) -> None:
        super().__init__()
        widths = [channels, *[max(1, hidden // 2)] * (halvings - 1), hidden]
        self.halvings = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(hidden, inner) for _ in range(blocks))
        self.last = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        for halving in self.halvings:
            x = F.relu(halving(x))
        x = self.near(x)
        for block in self.blocks:
            x = block(x)
        return self.last(F.relu(x))


class Decoder(nn.Module):
    """Features (N, width, h, w) -> (N, channels, h * 2**doublings, w * 2**doublings): an `Encoder` in reverse."""

    def __init__(self, width: int, hidden: int, blocks: int, inner: int, channels: int, doublings: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(hidden, inner) for _ in range(blocks))
        widths = [hidden, *[max(1, hidden // 2)] * (doublings - 1), channels]
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.near(x)
        for block in self.blocks:
            x = block(x)
        for doubling in self.doublings:
            x = doubling(F.relu(x))
        return x


class RectifiedBlock(ResidualBlock):
    """A residual block of what is not negative: h + conv1x1(relu(conv3x3(h))) of h = relu(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu(x))


class RectifiedEncoder(nn.Module):
    """Images (N, channels, H, W) -> features (N, hidden, H / 2**halvings, W / 2**halvings).

    Convolutions of kernel 4 and stride 2 with a relu between them, then rectified blocks.
    """

    def __init__(self, channels: int, hidden: int, blocks: int, inner: int, halvings: int) -> None:
        super().__init__()
        widths = [channels, *[hidden] * halvings]
        self.halvings = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.blocks = nn.ModuleList(RectifiedBlock(hidden, inner) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for index, halving in enumerate(self.halvings):
            x = halving(F.relu(x) if index else x)
        for block in self.blocks:
            x = block(x)
        return x


class RectifiedDecoder(nn.Module):
    """Features (N, hidden, h, w) -> (N, channels, h * 2**doublings, w * 2**doublings) between -1 and 1, a
    `RectifiedEncoder` in reverse."""

    def __init__(self, hidden: int, blocks: int, inner: int, channels: int, doublings: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RectifiedBlock(hidden, inner) for _ in range(blocks))
        widths = [*[hidden] * doublings, channels]
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        for doubling in self.doublings:
            x = doubling(F.relu(x))
        return torch.tanh(x)
