"""Python loops over positions: recurrences that are unrolled when recorded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv
from .registry import idiom


@idiom((1, 3, 4))
class RecurrenceAlongRows(nn.Module):
    """A state that walks from left to right, fed with the pixel before."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = MaskedConv("A", 1, 4)
        self.state = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        inputs = self.inputs(x)
        state = x.new_zeros(len(x), x.shape[2], 4)
        columns = []
        for i in range(x.shape[3]):
            state = torch.tanh(self.state(state) + inputs[..., i].transpose(1, 2))
            columns.append(self.head(state))
        return torch.stack(columns, dim=-1).transpose(1, 2)


@idiom((1, 4, 3))
class RecurrenceDownwards(nn.Module):
    """A state that walks down row by row, with gates as a row LSTM has."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = MaskedConv("B", 1, 12)
        self.state = nn.Conv1d(3, 12, 3, padding=1)
        self.head = nn.Conv2d(3, 4, 1)
        self.link = MaskedConv("A", 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        inputs = self.inputs(F.pad(x, (0, 0, 1, -1)))
        hidden = cell = x.new_zeros(len(x), 3, x.shape[3])
        rows = []
        for y in range(x.shape[2]):
            i, f, o, g = (inputs[:, :, y] + self.state(hidden)).chunk(4, dim=1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            rows.append(hidden)
        return self.head(torch.stack(rows, dim=2)) + self.link(x)


@idiom((1, 2, 4))
class LstmCellOverPixels(nn.Module):
    """nn.LSTMCell, pixel after pixel through the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(1, 3)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        pixels = F.pad(x.flatten(2), (1, -1))[:, 0]
        state = (x.new_zeros(len(x), 3), x.new_zeros(len(x), 3))
        logits = []
        for i in range(pixels.shape[1]):
            state = self.cell(pixels[:, i : i + 1], state)
            logits.append(self.head(state[0]))
        return torch.stack(logits, dim=-1).view(len(x), 4, *x.shape[2:])


@idiom((1, 3, 4))
class LstmAlongRows(nn.Module):
    """nn.LSTM with every row a sequence of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 3)
        self.cells = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        rows = self.stem(x).permute(0, 2, 3, 1).reshape(n * height, width, 3)
        return self.cells(rows)[0].reshape(n, height, width, 4).permute(0, 3, 1, 2)


@idiom((1, 2, 4))
class GruOverPixels(nn.Module):
    """nn.GRU of two layers, pixel after pixel through the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(1, 4, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        pixels = F.pad(x.flatten(2), (1, -1)).transpose(1, 2)
        return self.cells(pixels)[0].transpose(1, 2).reshape(len(x), 4, *x.shape[2:])


@idiom((1, 3, 4))
class DiagonalSkew(nn.Module):
    """Rows shifted by their number so that a diagonal becomes a column, a convolution, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 3)
        self.conv = nn.Conv2d(3, 4, (2, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        h = torch.tanh(self.stem(x))
        skewed = h.new_zeros(n, 3, height, width + height - 1)
        for y in range(height):
            skewed[:, :, y, y : y + width] = h[:, :, y]
        mixed = self.conv(F.pad(skewed, (1, -1, 1, 0)))
        return torch.stack([mixed[:, :, y, y : y + width] for y in range(height)], dim=2)
