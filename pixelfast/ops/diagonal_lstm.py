"""The Diagonal LSTM: an LSTM that walks from one side of the image to the other, a diagonal at a time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pixelfast.errors import ShapeError

from .recurrence import lstm, lstm_reference

TAPS = 2
"""Of the state-to-state convolution along a column of the skewed map: the row above, and the row itself."""


def skew(x: Tensor) -> Tensor:
    """(..., H, W) -> (..., H, W + H - 1): row y moved right by y columns, zeros around it."""
    height, width = x.shape[-2:]
    # With H zeros behind each row, and the last H left out, rows of one column less begin one column later each.
    return F.pad(x, (0, height)).flatten(-2)[..., :-height].unflatten(-1, (height, width + height - 1))


def unskew(x: Tensor) -> Tensor:
    """(..., H, W + H - 1) -> (..., H, W): what `skew` has moved, back in its place."""
    height, columns = x.shape[-2:]
    return F.pad(x.flatten(-2), (0, height)).unflatten(-1, (height, columns + 1))[..., : columns + 1 - height]


def diagonal_lstm(
    gates: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """Hidden states of one direction of a Diagonal BiLSTM.

    The gates are skewed (`skew`), so that a diagonal of the image becomes a column. At every column of the skewed map

        o, f, i, g = sigmoid, sigmoid, sigmoid, tanh of gates + bias + conv(h of the column before, weight)
        c = f * (c of the column before) + i * g,    h = o * tanh(c)

    where the convolution reads the row above and the row itself: in the image, the pixel above and the pixel to the
    left. The padding of the skew is part of the map: row y runs through y columns of zero gates before its first
    pixel. The input-to-state part is computed before and makes `gates`. There are no peepholes. van den Oord et al.,
    "Pixel Recurrent Neural Networks", 2016, section 3.2. Differentiable once; 16-bit floats are computed in float32.
    Autocast casts the other arguments to the dtype of the gates.

    Args:
        gates: (N, 4 C, H, W) floats, the gates in the order o, f, i, g.
        weight: (4 C, C, 2): the row above, then the row itself.
        bias: (4 C,), or (1,) for one number that all gates share.
        hidden, cell: the state before the first column, (C,) or (C, H); zeros when left out.
        reverse: from right to left. A model shifts the result down by one row: h of (y, x) has seen the pixels to the
            right of x in its row.

    Returns:
        (N, C, H, W) in the dtype of the gates.

    Raises:
        ShapeError: shapes, dtypes or devices do not fit.
    """
    _check(gates, weight)
    lines = skew(gates.flip(-1) if reverse else gates).transpose(-2, -1)
    out = unskew(lstm(lines, weight, bias, hidden, cell, 1, gates.shape[-1]).transpose(-2, -1))
    return out.flip(-1) if reverse else out


def diagonal_lstm_reference(
    gates: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """`diagonal_lstm` in plain torch."""
    _check(gates, weight)
    lines = skew(gates.flip(-1) if reverse else gates).transpose(-2, -1)
    out = unskew(lstm_reference(lines, weight, bias, hidden, cell, 1).transpose(-2, -1))
    return out.flip(-1) if reverse else out


def _check(gates: Tensor, weight: Tensor) -> None:
    if weight.ndim != 3 or weight.shape[2] != TAPS:
        raise ShapeError(f"the weight has shape {tuple(weight.shape)}; it must be (4 C, C, {TAPS})")
    if gates.ndim != 4 or 0 in gates.shape[1:]:
        raise ShapeError(
            f"the gates have shape {tuple(gates.shape)}; they must be (N, 4 C, H, W), only N may be 0"
        )
