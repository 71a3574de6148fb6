"""Convolutions of activated inputs by torch's own convolution: on any device, on the live taps only.

The activation lives as long as one call; the backward pass computes it again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .masked_conv_activations import activate, activate_gradient, padded
from .masked_conv_layout import memory_format


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    condition: Tensor | None,
    added: Tensor | None,
    seed: Tensor | None,
    kind: str,
    padding: list[int],
    dilation: list[int],
    dropout: float,
) -> Tensor:
    """See `masked_conv_core`."""
    features = padded(activate(x, condition, seed, kind, dropout), padding)
    out = F.conv2d(features, weight, bias, dilation=dilation)
    if added is not None:
        out = out.add_(added)
    return out.contiguous(memory_format=memory_format(x))


def conv_backward(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    condition: Tensor | None,
    seed: Tensor | None,
    kind: str,
    padding: list[int],
    dilation: list[int],
    dropout: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """See `masked_conv_core`."""
    features = padded(activate(x, condition, seed, kind, dropout), padding)
    features_gradient, weight_gradient, bias_gradient = torch.ops.aten.convolution_backward(
        upstream, features, weight, [weight.shape[0]], [1, 1], [0, 0], dilation, False, [0, 0], 1, needs
    )
    x_gradient = x.new_empty(0)  # of its own: outputs of an operation must not share memory
    if needs[0]:
        cropped = padded(features_gradient, [-side for side in padding])
        x_gradient = torch.empty_like(x).copy_(activate_gradient(cropped, x, condition, seed, kind, dropout))
    return (
        x_gradient,
        weight_gradient.contiguous() if needs[1] else x.new_empty(0),
        bias_gradient if needs[2] else x.new_empty(0),
    )
