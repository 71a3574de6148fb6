"""Operations that write into tensors, and views through which they are read again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv
from .registry import idiom


@idiom()
class AddedInPlace(nn.Module):
    """h += f(h), relu_, and an in-place module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.convs = nn.ModuleList(MaskedConv("B", 4, 4) for _ in range(2))
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for conv in self.convs:
            h += conv(self.act(h.clone()))
            h *= 0.5
        return self.head(h.relu_())


@idiom()
class SliceAssignment(nn.Module):
    """Slices of a tensor overwritten by others; an alias sees the new values."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 6)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        alias = h[:, 2:4]
        h[:, :2] = torch.tanh(h[:, 4:])
        alias.add_(1.0)
        h[:, 4:].mul_(alias)
        h[:, 5, 0, :] = 0.25
        return self.head(h)


@idiom()
class ShiftIntoZeros(nn.Module):
    """A shift by writing into a tensor of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        out = torch.zeros_like(h)
        out[:, :, 1:] = h[:, :, :-1]
        out[:, :, :, 1:] += h[:, :, :, :-1]
        return self.head(torch.sigmoid(out))


@idiom()
class BufferWrittenRowByRow(nn.Module):
    """The output assembled in a loop over rows of a tensor that was empty."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Conv1d(2, 4, 3, padding=1)
        self.left = nn.Conv1d(1, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.empty(len(x), 4, *x.shape[2:], dtype=x.dtype)
        above = x.new_zeros(len(x), 2, x.shape[3])
        for y in range(x.shape[2]):
            line = x[:, :, y]
            out[:, :, y] = self.row(above) + self.left(F.pad(line, (2, -1)))
            above = torch.cat([above[:, 1:], line], dim=1)
        return out


@idiom()
class RegisteredBufferAsScratch(nn.Module):
    """Writes into a buffer of its own; the module must be as before afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.register_buffer("scratch", torch.full((1, 4, 4, 5), 7.0))
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.scratch.fill_(0.5)
        self.scratch[:, 1:3] = 2.0
        return self.head(self.stem(x) * self.scratch)


@idiom()
class IndexPut(nn.Module):
    """Rows permuted back and forth by integer indices, and an assignment under a boolean mask."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.stem(x))
        order = torch.tensor([2, 0, 3, 1])
        out = torch.zeros_like(h)
        out[:, order] = h
        edge = torch.zeros(5, dtype=torch.bool)
        edge[0] = True
        out[..., edge] = 0.5
        return self.head(out[:, order.flip(0)])


@idiom()
class CopiedAndTransposed(nn.Module):
    """copy_, transposed and flipped views, written through."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        out = torch.zeros(len(x), *x.shape[2:], 4, dtype=x.dtype)
        out.permute(0, 3, 1, 2).copy_(h)
        out.transpose(1, 2)[..., 0].exp_()
        return self.head(out.flip(-1).permute(0, 3, 1, 2))
