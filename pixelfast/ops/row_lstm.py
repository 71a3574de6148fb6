"""The Row LSTM: an LSTM that walks down the image, a whole row at a time."""

from __future__ import annotations

from torch import Tensor

from pixelfast.errors import ShapeError

from .recurrence import lstm, lstm_reference


def row_lstm(
    gates: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
) -> Tensor:
    """Hidden states of a Row LSTM. Its state-to-state part is a convolution of the row above, over `taps` columns:

        o, f, i, g = sigmoid, sigmoid, sigmoid, tanh of gates[y] + bias + conv(h[y - 1], weight)
        c[y] = f * c[y - 1] + i * g,    h[y] = o * tanh(c[y])

    with zeros beyond the sides of the image. The input-to-state part is computed before, for the whole map: it makes
    `gates`. There are no peepholes. van den Oord et al., "Pixel Recurrent Neural Networks", 2016, section 3.1 and
    equation 3. Differentiable once; 16-bit floats are computed in float32. Autocast casts the other arguments to the
    dtype of the gates.

    Args:
        gates: (N, 4 C, H, W) floats, the gates in the order o, f, i, g.
        weight: (4 C, C, taps), taps odd; not flipped, as in torch's own convolutions.
        bias: (4 C,), or (1,) for one number that all gates share.
        hidden, cell: the state above the first row, (C,) or (C, W); zeros when left out.

    Returns:
        (N, C, H, W) in the dtype of the gates.

    Raises:
        ShapeError: shapes, dtypes or devices do not fit.
    """
    return lstm(gates, weight, bias, hidden, cell, _reach(weight))


def row_lstm_reference(
    gates: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
) -> Tensor:
    """`row_lstm` in plain torch."""
    return lstm_reference(gates, weight, bias, hidden, cell, _reach(weight))


def _reach(weight: Tensor) -> int:
    if weight.ndim != 3 or weight.shape[2] % 2 == 0:
        raise ShapeError(f"the weight has shape {tuple(weight.shape)}; it must be (4 C, C, taps), taps odd")
    return weight.shape[2] // 2
