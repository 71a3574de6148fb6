"""The convolution of PixelCNN++'s residual blocks: concatenated ELU, dropout and convolution as one operation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelfast.errors import PixelfastError, ShapeError

from .concat_elu_dropout import draw_seed
from .masked_conv import Padding
from .masked_conv_activations import activate, padded
from .masked_conv_core import activated_conv


def concat_elu_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: Padding = (0, 0, 0, 0),
    dilation: int = 1,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """masked_conv(dropout(elu([x, -x]))): what `concat_elu_conv_reference` returns.

    The double-width features and the dropout mask are never kept: the backward pass computes them again from x and a
    seed. Salimans et al., "PixelCNN++", ICLR 2017; concatenated units: Shang et al., ICML 2016.

    Args:
        x: (N, C, H, W), as in `masked_conv`.
        weight: (out, 2 C, rows, columns).
        dropout: probability that a feature is dropped, from 0 up to, not including, 1; the others are multiplied by
            1 / (1 - dropout).
        seed: int64 (), determines which; by default drawn from torch's generator of x's device.
        bias, padding, dilation, added: as in `masked_conv`.

    Returns:
        (N, out, H, W) in the dtype of x, channels-last if x is.

    Raises:
        ShapeError, PixelfastError: an argument does not fit.
        BackendError: the kernels cannot be loaded.
    """
    return activated_conv(
        x,
        weight,
        bias,
        kind="concat_elu",
        padding=padding,
        dilation=dilation,
        added=added,
        seed=_seed(x, dropout, seed),
        dropout=dropout,
    )


def concat_elu_conv_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: Padding = (0, 0, 0, 0),
    dilation: int = 1,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """`concat_elu_conv` in plain torch."""
    features = activate(x, None, _seed(x, dropout, seed), "concat_elu", dropout)
    out = F.conv2d(padded(features, padding), weight, bias, dilation=dilation)
    return out if added is None else out + added


def _seed(x: Tensor, dropout: float, seed: Tensor | None) -> Tensor | None:
    if not 0 <= dropout < 1:
        raise PixelfastError(f"dropout is {dropout}; it must be from 0 up to, not including, 1")
    if dropout == 0:
        return None
    if seed is None:
        return draw_seed(x.device)
    if not isinstance(seed, Tensor) or (seed.dtype, seed.shape, seed.device) != (torch.int64, (), x.device):
        raise ShapeError(f"the seed is {seed!r}; it must be an int64 tensor of shape () on {x.device}")
    return seed
