"""Continuous latents: networks that read real numbers and say how the next ones are distributed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelfast import DiagonalGaussian

from .causal import MaskedConv
from .colours import GroupConv
from .registry import idiom


def network(inputs: int, outputs: int, features: int = 5) -> nn.Module:
    return nn.Sequential(
        MaskedConv("A", inputs, features), nn.Tanh(), MaskedConv("B", features, features), nn.ELU(),
        nn.Conv2d(features, outputs, 1),
    )  # fmt: skip


@idiom((2, 4, 5), DiagonalGaussian(), input="real")
def gaussian_latents() -> nn.Module:
    """Channels of a position that do not see each other."""
    return network(2, 4)


class Bounded(nn.Module):
    """Means and scales kept within bounds, as published models keep them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        mean, log_scale = self.net(x.clamp(-50, 50)).chunk(2, dim=1)
        scale = 0.5 * (1 + nn.functional.softsign(log_scale))
        return torch.cat([2 * nn.functional.softsign(mean / 2), torch.log(scale)], dim=1)


@idiom((1, 4, 5), DiagonalGaussian(), input="real")
def gaussian_latents_within_bounds() -> nn.Module:
    return Bounded()


@idiom((2, 3, 4), DiagonalGaussian(), input="real")
def gaussian_latents_in_turn() -> nn.Module:
    """The second channel of a position sees the first."""
    features, outputs = torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([0, 1, 0, 1])
    return nn.Sequential(GroupConv("A", torch.arange(2), features, 3), nn.Tanh(), GroupConv("B", features, outputs, 1))


class Conditioned(nn.Module):
    """A prior of one level of latents given those of the level above, which is a map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 2, 6)
        self.above = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor, above: Tensor) -> Tensor:
        return self.head(torch.tanh(self.stem(x) + self.above(above)))


def map_above(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 3, 4, 5, generator=generator)


@idiom((2, 4, 5), DiagonalGaussian(), input="real", condition=map_above)
def gaussian_latents_given_a_map() -> nn.Module:
    return Conditioned()
