"""1x1 convolutions in disguise, and fully connected causal networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv
from .registry import idiom


@idiom()
class LinearByPermute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 5)
        self.linear = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.stem(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@idiom()
class LinearByView(nn.Module):
    """view(B * H * W, C): the batch and the positions in one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 5)
        self.net = nn.Sequential(nn.Linear(5, 6, bias=False), nn.Tanh(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        pixels = self.stem(x).permute(0, 2, 3, 1).contiguous().view(n * height * width, 5)
        return self.net(pixels).view(n, height, width, 4).permute(0, 3, 1, 2).contiguous()


@idiom()
class LinearByEinsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 5)
        self.weight = nn.Parameter(torch.randn(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("oc,nchw->nohw", self.weight, torch.relu(self.stem(x)))


@idiom()
class LinearByMatmul(nn.Module):
    """A matrix from the left on (N, C, H * W), and tensordot."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 5)
        self.first = nn.Parameter(torch.randn(5, 5))
        self.second = nn.Parameter(torch.randn(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first @ self.stem(x).flatten(2)).view(len(x), 5, *x.shape[2:])
        return torch.tensordot(h, self.second, dims=([1], [1])).movedim(-1, 1)


@idiom()
class HeadsPerGroup(nn.Module):
    """A batched matrix product with one constant matrix per group of features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 6)
        self.weight = nn.Parameter(torch.randn(2, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        grouped = torch.tanh(self.stem(x)).view(n, 2, 3, height * width)
        return torch.einsum("ngcp,gco->ngop", grouped, self.weight).reshape(n, 4, height, width)


def made_mask(degrees_in: Tensor, degrees_out: Tensor, strict: bool) -> Tensor:
    inside = degrees_in[None] < degrees_out[:, None] if strict else degrees_in[None] <= degrees_out[:, None]
    return inside.float()


class MaskedLinear(nn.Linear):
    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


@idiom((1, 3, 4))
class MaskedPerceptron(nn.Module):
    """Masks on fully connected layers, with hidden units of random degrees."""

    def __init__(self) -> None:
        super().__init__()
        pixels, hidden = torch.arange(12), torch.randint(0, 11, (16,))
        self.first = MaskedLinear(made_mask(pixels, hidden, strict=False))
        self.second = MaskedLinear(made_mask(hidden, pixels.repeat(4), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x.flatten(1)))).view(-1, 4, 3, 4)


@idiom((2, 2, 3))
class MaskedPerceptronOfColours(nn.Module):
    """Channels are neighbours in the order: number = pixel * C + channel."""

    def __init__(self) -> None:
        super().__init__()
        order, hidden = torch.arange(12), torch.arange(12).repeat(2)
        self.first = MaskedLinear(made_mask(order, hidden, strict=False))
        self.second = MaskedLinear(made_mask(hidden, order.repeat_interleave(4), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        numbers = x.permute(0, 2, 3, 1).flatten(1)
        return self.second(F.elu(self.first(numbers))).view(-1, 2, 3, 2, 4).permute(0, 4, 3, 1, 2)
