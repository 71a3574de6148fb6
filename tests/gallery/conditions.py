"""Conditions: a label, a vector, a map, several of them, and networks of their own for them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv
from .registry import idiom


def label(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(3, (n,), generator=generator)


def vector(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 3, generator=generator)


def spatial(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, 4, 5, generator=generator)


def coarse(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, 2, 3, generator=generator)


def label_and_map(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return label(n, generator), spatial(n, generator)


def named(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"style": vector(n, generator), "label": label(n, generator)}


class Conditional(nn.Module):
    """Adds what `features` makes of the condition to the hidden features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.conv = MaskedConv("B", 4, 8)
        self.head = nn.Conv2d(4, 4, 1)

    def features(self, *condition: Any) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, *condition: Any) -> Tensor:
        first, second = (self.conv(torch.relu(self.stem(x))) + self.features(*condition)).chunk(2, 1)
        return self.head(torch.tanh(first) * torch.sigmoid(second))


@idiom(condition=label)
class LabelEmbedded(Conditional):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 8)

    def features(self, label: Tensor) -> Tensor:
        return self.table(label)[:, :, None, None]


@idiom(condition=label)
class LabelOneHot(Conditional):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 8, bias=False)

    def features(self, label: Tensor) -> Tensor:
        return self.linear(F.one_hot(label, 3).to(self.linear.weight)).unsqueeze(-1).unsqueeze(-1)


@idiom(condition=label)
class LabelAsChannels(nn.Module):
    """The label's one-hot code as constant maps beside the image, in front of the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(MaskedConv("A", 4, 5), nn.ReLU(), MaskedConv("B", 5, 4))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        code = torch.zeros(len(x), 3).scatter_(1, label[:, None], 1).to(x)
        return self.net(torch.cat([x, code[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1))


@idiom(condition=vector)
class VectorProjected(Conditional):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 8))

    def features(self, style: Tensor) -> Tensor:
        return self.net(style)[..., None, None]


@idiom(condition=vector)
class FeaturewiseModulation(nn.Module):
    """Scale and shift of every feature from the condition (FiLM)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.film = nn.Linear(3, 8)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.film(style)[:, :, None, None].chunk(2, dim=1)
        return self.head(torch.relu(self.stem(x) * (1 + scale) + shift))


@idiom(condition=spatial)
class MapProjected(Conditional):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(2, 8, 1)

    def features(self, where: Tensor) -> Tensor:
        return self.project(where)


@idiom(condition=spatial)
class MapThroughUnmaskedConvs(Conditional):
    """The condition's own network sees the whole map, with batch norm and a mean over all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1)
        )

    def features(self, where: Tensor) -> Tensor:
        h = self.net(where)
        return h - h.mean(dim=(2, 3), keepdim=True)


@idiom((1, 4, 6), condition=coarse)
class MapUpsampled(Conditional):
    """A map at half the resolution, brought up by a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 8, 4, stride=2, padding=1)

    def features(self, where: Tensor) -> Tensor:
        return self.up(where)


@idiom(condition=spatial)
class MapInFrontOfAMaskedConv(nn.Module):
    """Concatenated with the features, then read by causal windows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 3)
        self.conv = MaskedConv("B", 5, 4)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        return self.conv(torch.cat([torch.relu(self.stem(x)), where], dim=1))


@idiom(condition=label_and_map)
class TupleOfConditions(Conditional):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 8)
        self.project = nn.Conv2d(2, 8, 1)

    def features(self, label: Tensor, where: Tensor) -> Tensor:
        return self.table(label)[:, :, None, None] * torch.sigmoid(self.project(where))


@idiom(condition=named)
class DictOfConditions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.table = nn.Embedding(3, 4)
        self.linear = nn.Linear(3, 4)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor, label: Tensor, style: Tensor) -> Tensor:
        code = torch.relu(self.table(label) + self.linear(style))
        return self.head(torch.tanh(self.stem(x) + code[:, :, None, None]))


@idiom(condition=spatial)
class MapWrittenIntoBuffers(nn.Module):
    """Condition and features written side by side into zeros, each then changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 2)
        self.conv = MaskedConv("B", 4, 4)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        h = self.stem(x)
        joined = h.new_zeros(len(x), 4, *x.shape[2:])
        joined[:, :2] = where
        joined[:, 2:] = h
        joined[:, 1:3] *= 2
        joined[:, 0] += h[:, 0]
        return self.conv(joined)


@idiom(condition=spatial)
class MapThroughAttention(Conditional):
    """Any operation will do for what depends on the condition alone."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)
        self.linear = nn.Linear(2, 8)

    def features(self, where: Tensor) -> Tensor:
        tokens = where.flatten(2).transpose(1, 2)
        mixed = self.attention(tokens, tokens, tokens)[0].cumsum(dim=1).sort(dim=1).values
        return self.linear(mixed).transpose(1, 2).reshape(len(where), 8, *where.shape[2:])


@idiom(condition=spatial)
class MapAsMask(nn.Module):
    """Where the condition is positive one thing is computed, elsewhere another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        h = self.stem(x)
        chosen = torch.where(where[:, :1] > 0, torch.tanh(h), -h)
        return self.head(chosen.masked_fill(where[:, 1:] > 1, 0.5))


@idiom(condition=label)
class WeightChosenByLabel(nn.Module):
    """One bias per class, gathered by index_select, added to the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.bias = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.stem(x) + self.bias.index_select(0, label)[:, :, None, None]
