"""What a convolution may do to its input first, and the gradients, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .concat_elu_dropout import dropout_factors

FACTORS = {"none": (1, 1), "concat_elu": (2, 1), "tanh": (1, 2), "linear": (1, 2)}
"""Features per channel of the input, as (numerator, denominator)."""


def padded(x: Tensor, padding: Sequence[int]) -> Tensor:
    """F.pad, also where a side crops more than the image has and the other makes up for it: zeros come first."""
    if -min(padding) <= min(x.shape[2:]):
        return F.pad(x, list(padding))
    return F.pad(F.pad(x, [max(side, 0) for side in padding]), [min(side, 0) for side in padding])


def gate_halves(x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
    """The halves of the channels of x + condition."""
    first, second = (x if condition is None else x + condition).chunk(2, dim=1)
    return first, second


def gate(x: Tensor, condition: Tensor | None, kind: str) -> Tensor:
    """tanh (kind "tanh") of the first half, or the first half ("linear"), times sigmoid of the second."""
    first, second = gate_halves(x, condition)
    return (first.tanh() if kind == "tanh" else first) * second.sigmoid()


def gate_gradient(upstream: Tensor, x: Tensor, condition: Tensor | None, kind: str) -> Tensor:
    """The gradient of `gate` in x, given that of its result."""
    first, second = gate_halves(x, condition)
    value, share = first.tanh() if kind == "tanh" else first, second.sigmoid()
    slope = upstream * share
    return torch.cat((slope * (1 - value * value) if kind == "tanh" else slope, slope * value * (1 - share)), dim=1)


def activate(x: Tensor, condition: Tensor | None, seed: Tensor | None, kind: str, dropout: float) -> Tensor:
    """The features that the convolution sums: x (N, C, H, W) -> (N, C, H, W), (N, 2C, H, W) or (N, C / 2, H, W)."""
    if kind == "none":
        return x
    if kind != "concat_elu":
        return gate(x, condition, kind)
    features = F.elu(torch.cat((x, -x), dim=1))
    return features if seed is None else features * dropout_factors(seed, x.shape, dropout, x.dtype)


def activate_gradient(
    upstream: Tensor, x: Tensor, condition: Tensor | None, seed: Tensor | None, kind: str, dropout: float
) -> Tensor:
    """The gradient of `activate` in x, given that of its result."""
    if kind == "none":
        return upstream
    if kind != "concat_elu":
        return gate_gradient(upstream, x, condition, kind)
    if seed is not None:
        upstream = upstream * dropout_factors(seed, x.shape, dropout, x.dtype)
    positive, negative = upstream.chunk(2, dim=1)
    decay = torch.exp(-x.abs())
    return positive * torch.where(x > 0, 1, decay) - negative * torch.where(x < 0, 1, decay)
