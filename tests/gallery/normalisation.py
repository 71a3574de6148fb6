"""Normalisations that are causal: batch norm in evaluation mode, and norms over channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv
from .registry import idiom


@idiom()
def batch_norm() -> nn.Module:
    return nn.Sequential(
        MaskedConv("A", 1, 5), nn.BatchNorm2d(5), nn.ReLU(), MaskedConv("B", 5, 4), nn.BatchNorm2d(4, affine=False)
    )


@idiom()
class BatchNormBeforeConv(nn.Module):
    """Behind an activation, in front of a padded convolution: zero padding is not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 5)
        self.norm = nn.BatchNorm2d(5)
        self.conv = MaskedConv("B", 5, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.batch_norm(self.norm(torch.relu(self.stem(x))), torch.zeros(5).to(x), torch.ones(5).to(x))
        return self.conv(h)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@idiom()
def layer_norm() -> nn.Module:
    return nn.Sequential(MaskedConv("A", 1, 6), ChannelNorm(6), nn.GELU(), MaskedConv("B", 6, 4))


@idiom()
class LayerNormByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 6)
        self.gain = nn.Parameter(torch.ones(1, 6, 1, 1))
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        centred = h - h.mean(dim=1, keepdim=True)
        return self.head(centred * torch.rsqrt(h.var(dim=1, unbiased=False, keepdim=True) + 1e-5) * self.gain)


@idiom()
class RootMeanSquareNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 6)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h = h / (h.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
        return self.head(F.normalize(torch.relu(h) + 0.1, dim=1))


@idiom()
class GroupNormPerPixel(nn.Module):
    """Group norm over channels alone: positions are put in the batch axis first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 6)
        self.norm = nn.GroupNorm(2, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        pixels = self.stem(x).permute(0, 2, 3, 1).reshape(-1, 6)
        return self.head(self.norm(pixels)).view(n, height, width, 4).permute(0, 3, 1, 2)


@idiom()
class SoftmaxOverChannels(nn.Module):
    """Inside the network; the logits of the head are log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 6)
        self.values = MaskedConv("B", 6, 6)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        weights = F.softmax(h, dim=1)
        return F.log_softmax(self.head(weights * self.values(h)) * 3, dim=1)


@idiom()
class LogSumExp(nn.Module):
    """Maxima, sums, products and logsumexp over groups of channels (maxout and its relatives)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 12)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).unflatten(1, (4, 3))
        parts = [h.amax(2), torch.logsumexp(h, dim=2), h.sum(2), h[:, :2].prod(2), h.min(dim=2).values[:, :2]]
        mixed = torch.cat([*parts[:2], parts[2][:, :2] + parts[3], parts[4]], dim=1)
        return self.head(mixed)
