"""Python loops over positions: recurrences that are unrolled when recorded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast import ops

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


@idiom((1, 3, 4))
class LstmCellOverRows(nn.Module):
    """nn.LSTMCell down the rows, every column an entry of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = MaskedConv("A", 1, 3)
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        inputs = self.inputs(x).permute(2, 0, 3, 1)
        state = None
        rows = []
        for row in inputs:
            state = self.cell(row.reshape(-1, 3), state)
            rows.append(state[0].view(len(x), x.shape[3], 4))
        return torch.stack(rows, dim=2).permute(0, 3, 2, 1)


@idiom((1, 4, 3))
class SkewedLstmLoop(nn.Module):
    """A diagonal LSTM written as a loop over the columns of a skewed map, from both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 3)
        self.inputs = nn.ModuleList(nn.Conv2d(3, 16, 1) for _ in range(2))
        self.states = nn.ModuleList(nn.Conv1d(4, 16, 2) for _ in range(2))

    def walk(self, x: Tensor, inputs: nn.Module, states: nn.Module) -> Tensor:
        n, _, height, width = x.shape
        gates = inputs(torch.stack([F.pad(x[:, :, y], (y, height - 1 - y)) for y in range(height)], dim=2))
        hidden = cell = x.new_zeros(n, 4, height)
        columns = []
        for i in range(gates.shape[3]):
            g, f, o, u = (gates[..., i] + states(F.pad(hidden, (1, 0)))).chunk(4, dim=1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(g) * torch.tanh(u)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            columns.append(hidden)
        map_ = torch.stack(columns, dim=3)
        return torch.stack([map_[:, :, y, y : y + width] for y in range(height)], dim=2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        left = self.walk(h, self.inputs[0], self.states[0])
        right = self.walk(h.flip(3), self.inputs[1], self.states[1]).flip(3)
        return left + F.pad(right, (0, 0, 1, -1))


@idiom((1, 4, 5))
class RowLstm(nn.Module):
    """The operation, with a learned first state."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = MaskedConv("A", 1, 12)
        self.weight = nn.Parameter(torch.randn(12, 3, 3) / 3)
        self.bias = nn.Parameter(torch.zeros(12))
        self.first = nn.ParameterList(torch.zeros(3) for _ in range(2))
        self.head = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden, cell = self.first
        return self.head(ops.row_lstm(self.inputs(x), self.weight, self.bias, hidden=hidden, cell=cell))


@idiom((1, 5, 3))
class RowLstmOfRowsAbove(nn.Module):
    """The operation on gates that are zero in the first row, so that its states there are constants."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Conv2d(1, 8, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(8, 2, 3) / 3)
        self.bias = nn.Parameter(torch.zeros(8))
        self.head = nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        gates = F.pad(self.inputs(F.pad(x, (0, 0, 1, -1))), (0, 0, 1, -1))
        return self.head(ops.row_lstm(gates, self.weight, self.bias))


@idiom((1, 4, 3))
class DiagonalBiLstm(nn.Module):
    """Both directions, the right-to-left one shifted down a row, on an image taller than wide."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 3)
        self.inputs = nn.ModuleList(nn.Conv2d(3, 16, 1) for _ in range(2))
        self.weights = nn.ParameterList(torch.randn(16, 4, 2) / 3 for _ in range(2))
        self.biases = nn.ParameterList((torch.zeros(1), torch.zeros(16)))
        self.hidden = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        left, right = (
            ops.diagonal_lstm(inputs(h), weight, bias, hidden=self.hidden, reverse=reverse)
            for inputs, weight, bias, reverse in zip(
                self.inputs, self.weights, self.biases, (False, True), strict=True
            )
        )
        return left + F.pad(right, (0, 0, 1, -1))


@idiom((3, 3, 4))
class DiagonalLstmOfColours(nn.Module):
    """Features in three groups, one per colour, each with ready times of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 3, 6)
        self.inputs = nn.Conv2d(6, 24, 1)
        self.own = nn.Conv2d(3, 6, 1)
        self.head = nn.Conv2d(6, 12, 1)
        self.weight = nn.Parameter(torch.randn(24, 6, 2) / 3)
        group = torch.arange(6) // 2
        self.register_buffer("below", (group[:, None] >= group).float()[..., None, None])
        self.register_buffer("strict", (group[:, None] > torch.arange(3)).float()[..., None, None])
        self.register_buffer("levels", (torch.arange(12) % 3)[:, None].ge(group).float()[..., None, None])

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x) + F.conv2d(x, self.own.weight * self.strict, self.own.bias)
        gates = F.conv2d(h, self.inputs.weight * self.below.repeat(4, 1, 1, 1), self.inputs.bias)
        state = ops.diagonal_lstm(gates, self.weight)
        logits = F.conv2d(state, self.head.weight * self.levels, self.head.bias)
        return logits.unflatten(1, (4, 3))
