"""PixelRNN (van den Oord, Kalchbrenner and Kavukcuoglu 2016): residual layers of Row LSTMs or Diagonal BiLSTMs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast import ops
from pixelfast.models import checks
from pixelfast.models.causal_conv import HorizontalConv, MaskedConv1x1, MaskedConv2d, channel_mask
from pixelfast.models.pixel_head import pixel_likelihood

STEM = (7, 7)
ROW_TAPS = 3
"""Columns of the Row LSTM's convolutions, input-to-state and state-to-state."""
DIAGONAL_TAPS = 2
KINDS = ("row_lstm", "diagonal_bilstm")
MAX_LAYERS = 128


class Recurrence(nn.Module):
    """State-to-state weights, their bias, and the state before the first line, which is learned."""

    def __init__(self, hidden: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4 * hidden, hidden, taps))
        bound = 1 / math.sqrt(hidden * taps)
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        with torch.no_grad():
            self.bias[hidden : 2 * hidden] = 1  # the forget gate's: cells remember at the start of training
        self.hidden = nn.Parameter(torch.zeros(hidden))
        self.cell = nn.Parameter(torch.zeros(hidden))


class RowLSTM(nn.Module):
    """A Row LSTM with its masked 1x3 input-to-state convolution. (N, features, H, W) -> (N, hidden, H, W)."""

    def __init__(self, features: int, hidden: int, channels: int) -> None:
        super().__init__()
        mask = channel_mask(hidden, features, channels, own=True)
        self.input_to_state = HorizontalConv(features, 4 * hidden, ROW_TAPS, include_pixel=True, mask=mask)
        self.state_to_state = Recurrence(hidden, ROW_TAPS)

    def forward(self, x: Tensor) -> Tensor:
        state = self.state_to_state
        gates = self.input_to_state(x)
        return ops.row_lstm(gates, state.weight, state.bias, hidden=state.hidden, cell=state.cell)


class DiagonalLSTM(nn.Module):
    """One direction of a Diagonal BiLSTM with its 1x1 input-to-state convolution.

    From right to left (`reverse`) the states are shifted down by one row, since they have seen the rest of their own.
    (N, features, H, W) -> (N, hidden, H, W).
    """

    def __init__(self, features: int, hidden: int, channels: int, *, reverse: bool) -> None:
        super().__init__()
        mask = channel_mask(hidden, features, channels, own=True)
        self.input_to_state = MaskedConv1x1(features, 4 * hidden, mask)
        self.state_to_state = Recurrence(hidden, DIAGONAL_TAPS)
        self.reverse = reverse

    def forward(self, x: Tensor) -> Tensor:
        state = self.state_to_state
        out = ops.diagonal_lstm(
            self.input_to_state(x),
            state.weight,
            state.bias,
            hidden=state.hidden,
            cell=state.cell,
            reverse=self.reverse,
        )
        return F.pad(out, (0, 0, 1, -1)) if self.reverse else out


class PixelRNNBlock(nn.Module):
    """x + the sum of its LSTMs, widened by a 1x1 convolution where they are narrower. (N, features, H, W)."""

    def __init__(self, kind: str, features: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.directions: nn.ModuleList
        if kind == "row_lstm":
            self.directions = nn.ModuleList([RowLSTM(features, hidden, channels)])
        else:
            self.directions = nn.ModuleList(
                DiagonalLSTM(features, hidden, channels, reverse=reverse) for reverse in (False, True)
            )
        mask = channel_mask(features, hidden, channels, own=True)
        self.widen = MaskedConv1x1(hidden, features, mask) if features != hidden else None

    def forward(self, x: Tensor) -> Tensor:
        states = self.directions[0](x)
        for direction in self.directions[1:]:
            states = states + direction(x)
        return x + (states if self.widen is None else self.widen(states))


class PixelRNN(nn.Module):
    """PixelRNN: a 7x7 masked convolution, residual LSTM layers, two 1x1 convolutions with ReLU, and the output.

    Input x: float (N, C, H, W). Output: logits, (N, levels, C, H, W) for a Categorical likelihood, or for two levels
    (N, C, H, W) for a Bernoulli one. The channels of a pixel are sampled in turn, each feature map being split into one
    group per channel (R, then G, then B).

    Arguments:
        shape: (C, H, W) of the images it is made for.
        kind: "row_lstm" (sees a triangle above each pixel) or "diagonal_bilstm" (sees everything above and to the
            left).
        levels: of each number; 2 makes the output one logit.
        layers: residual LSTM layers.
        hidden: features of each LSTM's state.
        features: features between the layers; twice `hidden` when left out, as in the paper. Where it equals `hidden`,
            nothing widens the states.
        head: features of the two 1x1 convolutions before the output; as many as `features` when left out.
        input: scale of x, "signed" or "unit" (see `pixelfast.compile`).

    Source: "Pixel Recurrent Neural Networks", ICML 2016, sections 3 and 5.1, figure 5 and table 1. Raises ShapeError
    for a bad shape or input, PixelfastError for any other bad argument.
    """

    condition_example = None

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        kind: str = "diagonal_bilstm",
        levels: int = 2,
        layers: int = 7,
        hidden: int = 16,
        features: int | None = None,
        head: int | None = None,
        input: str = "unit",
    ) -> None:
        super().__init__()
        self.shape = checks.image_shape(shape)
        channels = self.shape[0]
        kind = checks.choice("kind", kind, KINDS)
        levels = checks.integer("levels", levels, 2, 1 << 16)
        layers = checks.integer("layers", layers, 1, MAX_LAYERS)
        hidden = checks.integer("hidden", hidden, channels, checks.MAX_WIDTH)
        features = checks.integer("features", 2 * hidden if features is None else features, channels, checks.MAX_WIDTH)
        head = checks.integer("head", features if head is None else head, channels, checks.MAX_WIDTH)
        self.input = checks.choice("input", input, ("signed", "unit"))
        self.likelihood = pixel_likelihood(levels)
        self.config: dict[str, Any] = {
            "shape": list(self.shape),
            "kind": kind,
            "levels": levels,
            "layers": layers,
            "hidden": hidden,
            "features": features,
            "head": head,
            "input": input,
        }

        def mask(targets: int, sources: int, *, own: bool = True) -> Tensor:
            return channel_mask(targets, sources, channels, own=own)

        self.stem = MaskedConv2d(channels, features, STEM, mask(features, channels, own=False))
        self.blocks = nn.ModuleList(PixelRNNBlock(kind, features, hidden, channels) for _ in range(layers))
        self.mix = nn.ModuleList(MaskedConv1x1(inputs, head, mask(head, inputs)) for inputs in (features, head))
        # The level is the slow index of the output and the channel the fast one: the mask repeats per level.
        self.head = MaskedConv1x1(head, channels * (1 if levels == 2 else levels), mask(channels, head))

    def forward(self, x: Tensor) -> Tensor:
        checks.float_images(x, self.shape[0])
        h = self.stem(x)
        for block in self.blocks:
            h = block(h)
        for layer in self.mix:
            h = F.relu(layer(h))
        logits = self.head(h)
        return logits if self.likelihood.levels == 2 else logits.unflatten(1, (-1, self.shape[0]))
