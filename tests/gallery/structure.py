"""How networks are put together: residuals, skips, dense links, shared layers, several stacks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import CornerConv, MaskedConv
from .registry import idiom


@idiom()
class SkipsSummed(nn.Module):
    """Every layer's output goes to the head as well (WaveNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.convs = nn.ModuleList(MaskedConv("B", 4, 4) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        parts = []
        for conv, skip in zip(self.convs, self.skips, strict=True):
            h = h + torch.tanh(conv(h))
            parts.append(skip(h))
        return F.elu(sum(parts)) + torch.stack(parts).mean(0)


@idiom()
class DenselyLinked(nn.Module):
    """Each layer reads all layers before it, side by side, and the shifted image."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(CornerConv(1 + 2 * i, 2) for i in range(3))
        self.head = nn.Conv2d(7, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = [F.pad(x, (1, -1))]
        for conv in self.convs:
            features.append(torch.relu(conv(torch.cat(features, dim=1))))
        return self.head(torch.cat(features[::-1], dim=1))


@idiom()
class TwoStacks(nn.Module):
    """A vertical stack of full rows above, and a horizontal one that reads it: no blind spot."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_v = nn.Conv2d(1, 3, (2, 3))
        self.stem_h = nn.Conv2d(1, 3, (1, 2))
        self.vertical = nn.Conv2d(3, 6, (2, 3))
        self.link = nn.Conv2d(6, 6, 1)
        self.horizontal = nn.Conv2d(3, 6, (1, 2))
        self.head = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        v = self.stem_v(F.pad(x, (1, 1, 2, -1)))
        h = self.stem_h(F.pad(x, (2, -1)))
        v2 = self.vertical(F.pad(v, (1, 1, 1, 0)))
        h2 = self.horizontal(F.pad(h, (1, 0))) + self.link(v2)
        a, b = h2.chunk(2, dim=1)
        return self.head(h + torch.tanh(a) * torch.sigmoid(b))


@idiom()
class SharedWeights(nn.Module):
    """One layer applied three times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.conv = MaskedConv("B", 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for _ in range(3):
            h = self.conv(torch.tanh(h))
        return h


@idiom()
class RowsOfTheBatch(nn.Module):
    """expand, repeat, reshape and unsqueeze of features on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 2)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        h = self.stem(x)
        spread = h.unsqueeze(2).expand(n, 2, 2, height, width).reshape(n, 4, height, width)
        scale = torch.arange(1, 5, dtype=x.dtype).view(1, 4, 1, 1)
        return self.head(torch.relu(torch.cat([spread * scale, h.repeat(1, 2, 1, 1)], dim=1)))


@idiom()
class DropoutInEvaluation(nn.Module):
    """Dropout modules and F.dropout with the flag handed on do nothing when evaluated."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(MaskedConv("A", 1, 6), nn.Dropout2d(0.5), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.net(x), 0.2, training=self.training))


@idiom()
class WaitsAtOneColumn(nn.Module):
    """A sum that must wait at every row's first pixel for the fourth, of features that others need at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)
        self.near = nn.Conv2d(4, 4, 1)
        self.far = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(F.pad(x, (1, -1)))
        late = torch.zeros_like(h)
        late[..., 0] = x[..., 3]
        return self.near(h) + F.pad(self.far(torch.tanh(h + late)), (4, -4))


@idiom((1, 3, 4))
class TransposedImage(nn.Module):
    """Rows and columns swapped in the middle of the network: a layer that looks left looks up."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 3, (1, 2))
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        left = self.left(F.pad(x, (2, -1)))
        up = self.left(F.pad(x.transpose(2, 3), (2, -1))).transpose(2, 3)
        return self.head(torch.relu(torch.cat([left, up], dim=1)))
