"""Convolutions of causal networks: only live taps are stored and summed, and the shift is an offset."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .masked_conv_activations import padded
from .masked_conv_core import activated_conv, masked_weight

Padding = tuple[int, int, int, int]
"""Zeros at the left, right, top and bottom; a negative number crops, and so shifts."""


def masked_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: Padding = (0, 0, 0, 0),
    dilation: int = 1,
    mask: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """A convolution of stride 1 whose kernel lies anywhere around its pixel: what `masked_conv_reference` returns.

    With the live rows and columns of a masked kernel and asymmetric `padding` this is a layer of a causal network:
    nothing is multiplied by zeros, padded, shifted or cropped in memory. x and weight are all that is kept for the
    backward pass. Differentiable once, in every tensor but the mask.

    Args:
        x: (N, in, H, W), float32, float64, float16 or bfloat16, any strides. 16-bit floats are summed in float32.
        weight: (out, in, rows, columns), of the same dtype; autocast casts every argument.
        bias: (out,).
        padding: of width and height so that the image's size stays; (left, right, top, bottom) as in
            `torch.nn.functional.pad`. A negative side crops: (1, 1, 2, -1) is a kernel of two rows above the pixel's.
        dilation: distance of neighbouring taps, of rows and columns.
        mask: broadcastable to the weight, which it multiplies: 0 where channels must not be seen.
        added: (N, out, H, W), added to the result.

    Returns:
        (N, out, H, W) in the dtype of x, channels-last if x is.

    Raises:
        ShapeError: shapes, dtypes or the padding do not fit.
        BackendError: the kernels cannot be loaded.
    """
    weight = masked_weight(weight, mask)
    return activated_conv(x, weight, bias, kind="none", padding=padding, dilation=dilation, added=added)


def masked_conv_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: Padding = (0, 0, 0, 0),
    dilation: int = 1,
    mask: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """`masked_conv` in plain torch."""
    weight = weight if mask is None else weight * mask
    out = F.conv2d(padded(x, padding), weight, bias, dilation=dilation)
    return out if added is None else out + added
