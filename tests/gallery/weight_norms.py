"""Weights that are computed from other parameters in every forward."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from .causal import CornerConv, MaskedConv, raster_mask
from .registry import idiom


class StrictStack(nn.Module):
    """Two convolutions padded above and left, the image shifted first. `norm` is applied to each."""

    def norm(self, layer: nn.Module) -> nn.Module:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.first = self.norm(CornerConv(1, 4))
        self.second = self.norm(CornerConv(4, 4, (1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.elu(self.first(F.pad(x, (1, -1)))))


@idiom()
class OldWeightNorm(StrictStack):
    """torch.nn.utils.weight_norm: hooks, and a weight that is no parameter; cannot be deep-copied."""

    def norm(self, layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return nn.utils.weight_norm(layer)


@idiom()
class ParametrizedWeightNorm(StrictStack):
    def norm(self, layer: nn.Module) -> nn.Module:
        return parametrizations.weight_norm(layer, dim=1)


@idiom()
class SpectralNorm(StrictStack):
    def norm(self, layer: nn.Module) -> nn.Module:
        return parametrizations.spectral_norm(layer).eval()


class Masked(nn.Module):
    """A parametrization: the weight times a raster mask."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.register_buffer("mask", raster_mask(kind, 3, 3))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


@idiom()
class ParametrizedMask(nn.Module):
    """Masked, on top of weight norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Conv2d(1, 5, 3, padding=1))
        self.second = nn.Conv2d(5, 4, 3, padding=1)
        parametrize.register_parametrization(self.first, "weight", Masked("A"))
        parametrize.register_parametrization(self.second, "weight", Masked("B"))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


@idiom()
class WeightNormByHand(nn.Module):
    """direction / norm * magnitude, with the mask applied before the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(5, 1, 3, 3))
        self.magnitude = nn.Parameter(torch.ones(5))
        self.head = MaskedConv("B", 5, 4)

    def forward(self, x: Tensor) -> Tensor:
        direction = self.direction * raster_mask("A", 3, 3).to(x)
        norm = direction.flatten(1).norm(dim=1)
        weight = direction * (self.magnitude / norm)[:, None, None, None]
        return self.head(torch.relu(F.conv2d(x, weight, padding=1)))


@idiom()
class StandardisedWeights(nn.Module):
    """Each filter's mean taken off, divided by its standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = MaskedConv("A", 1, 6)
        self.second = nn.Conv2d(6, 4, (1, 2))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.second.weight
        deviation, mean = torch.std_mean(weight, dim=(1, 2, 3), keepdim=True)
        h = F.pad(torch.tanh(self.first(x)), (1, 0))
        return F.conv2d(h, (weight - mean) / (deviation + 1e-5), self.second.bias)
