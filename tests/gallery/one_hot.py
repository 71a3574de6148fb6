"""Levels as one-hot codes and as embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast import Categorical

from .causal import MaskedConv
from .registry import idiom


class OneHotNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(MaskedConv("A", 4, 5), nn.ReLU(), MaskedConv("B", 5, 4))

    def code(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.code(x).to(self.net[0].weight.dtype))


@idiom(input="index")
class OneHotFunction(OneHotNetwork):
    def code(self, x: Tensor) -> Tensor:
        return F.one_hot(x, 4).permute(0, 3, 1, 2)


@idiom(input="levels")
class OneHotScatter(OneHotNetwork):
    def code(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 4, *x.shape[2:]).scatter_(1, x, 1)


@idiom(input="levels")
class OneHotScatterOfOnes(OneHotNetwork):
    def code(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 4, *x.shape[2:]).scatter(1, x, torch.ones_like(x, dtype=torch.float32))


@idiom(input="index")
class OneHotEye(OneHotNetwork):
    def code(self, x: Tensor) -> Tensor:
        return torch.eye(4)[x].permute(0, 3, 1, 2)


@idiom(input="index")
class OneHotComparison(OneHotNetwork):
    def code(self, x: Tensor) -> Tensor:
        return x[:, None] == torch.arange(4).view(1, 4, 1, 1)


@idiom((2, 3, 4), Categorical(3), input="levels")
class OneHotColours(nn.Module):
    """Every channel's code side by side; channels independent given what precedes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(MaskedConv("A", 6, 8), nn.ReLU(), nn.Conv2d(8, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        code = F.one_hot(x, 3).permute(0, 1, 4, 2, 3).flatten(1, 2)
        return self.net(code.to(self.net[0].weight.dtype)).unflatten(1, (3, 2))


@idiom(input="index")
class EmbeddingOfIndex(nn.Module):
    """(N, H, W) integers to (N, H, W, E)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3)
        self.net = nn.Sequential(MaskedConv("A", 3, 5), nn.ReLU(), MaskedConv("B", 5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.table(x).permute(0, 3, 1, 2).contiguous())


@idiom((2, 3, 4), Categorical(3), input="levels")
class EmbeddingOfLevels(nn.Module):
    """(N, C, H, W) integers to (N, C, H, W, E), the two axes of channels then merged."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4)
        self.net = nn.Sequential(MaskedConv("A", 8, 6), nn.ReLU(), nn.Conv2d(6, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        code = self.table(x).permute(0, 4, 1, 2, 3).reshape(len(x), 8, *x.shape[2:])
        return self.net(code).reshape(len(x), 3, 2, *x.shape[2:])


@idiom((2, 3, 4), Categorical(3), input="levels")
class EmbeddingPerChannel(nn.Module):
    """A table of its own for each channel, summed, with an offset of the index for the second."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(3, 4), nn.Embedding(6, 4)])
        self.net = nn.Sequential(MaskedConv("A", 4, 6), nn.ReLU(), nn.Conv2d(6, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        code = self.tables[0](x[:, 0]) + self.tables[1](x[:, 1] + 3)
        return self.net(code.permute(0, 3, 1, 2)).view(len(x), 3, 2, *x.shape[2:])
