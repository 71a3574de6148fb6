"""The discretized logistic mixture in plain torch: its mathematics, on any device and at any precision.

Salimans, Karpathy, Chen, Kingma, "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture
Likelihood and Other Modifications", ICLR 2017, equations 1 to 3. The probability of a bin is computed in a form
that is accurate for every bin. Kernels are compared with `mixture_nll_reference`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_SCALE_FLOOR = -7.0
"""Log-scales below this are raised to it, as in the published code."""


class Parts(NamedTuple):
    """Views of flat mixture parameters; component k is on axis 1, any further axes are positions.

    For three channels, tanh(coefficients[0]) is how much red moves the mean of green, tanh(coefficients[1])
    how much red and tanh(coefficients[2]) how much green moves the mean of blue.
    """

    logits: Tensor
    means: list[Tensor]
    log_scales: list[Tensor]
    coefficients: list[Tensor]


def planes_per_component(channels: int) -> int:
    """Parameters of one component at one pixel of 1 or 3 channels."""
    return 10 if channels == 3 else 3


def split(flat: Tensor, channels: int) -> Parts:
    """Views of (N, P, ...) parameters, P = M * planes_per_component(channels)."""
    mixtures = flat.shape[1] // planes_per_component(channels)
    kinds = 3 if channels == 3 else 2
    blocks = flat[:, mixtures:].unflatten(1, (channels, kinds, mixtures))
    means, log_scales, *coefficients = (blocks[:, :, kind].unbind(1) for kind in range(kinds))
    return Parts(flat[:, :mixtures], list(means), list(log_scales), [c for block in coefficients for c in block])


def component_means(parts: Parts, channel: int, values: Sequence[Tensor]) -> Tensor:
    """Means of the components given `values`, channels of x in [-1, 1] with a component axis."""
    mean = parts.means[channel]
    if channel == 1:
        return mean + torch.tanh(parts.coefficients[0]) * values[0]
    if channel == 2:
        red, green = (torch.tanh(c) for c in parts.coefficients[1:])
        return mean + red * values[0] + green * values[1]
    return mean


def signed(level: Tensor, levels: int) -> Tensor:
    """Levels as values in [-1, 1]."""
    return (2 * level - (levels - 1)) / (levels - 1)


def log_bins(mean: Tensor, log_scale: Tensor, level: Tensor, levels: int) -> Tensor:
    """Log-probability of the bin of `level` under each logistic; the arguments broadcast.

    With upper and lower the bin's edges in units of the scale,
    log(sigmoid(upper) - sigmoid(lower))
        = log(1 - exp(lower - upper)) + log sigmoid(upper) + log sigmoid(-lower),
    which loses nothing in the tails, where the difference of two sigmoids is all rounding error. The outermost
    bins reach to infinity. No floor is applied to `log_scale`.
    """
    # In half bins: next to the mean the differences are exact, so that neighbouring bins share their
    # edge to the last bit and the bins of a narrow logistic sum to 1 in float32 too.
    last = levels - 1
    centred = 2 * level.to(mean.dtype) - last - mean * last
    half_bin = torch.exp(-log_scale) / last
    above = F.logsigmoid((centred + 1) * half_bin)
    below = F.logsigmoid((1 - centred) * half_bin)
    lowest, highest = level == 0, level == last
    zero = above.new_zeros(())
    inner = torch.where(lowest | highest, zero, _log_widths(log_scale, levels))
    return inner + torch.where(highest, zero, above) + torch.where(lowest, zero, below)


def joint_scores(flat: Tensor, x: Tensor, levels: int) -> list[Tensor]:
    """For each channel c, log p(component, x_0 .. x_c), each (N, M, H, W), for (N, P, H, W) parameters."""
    parts = split(flat, x.shape[1])
    values = signed(x.to(flat.dtype), levels).unsqueeze(2).unbind(1)
    scores = torch.log_softmax(parts.logits, dim=1)
    result = []
    for channel in range(x.shape[1]):
        mean = component_means(parts, channel, values)
        log_scale = parts.log_scales[channel].clamp(min=LOG_SCALE_FLOOR)
        scores = scores + log_bins(mean, log_scale, x[:, channel].unsqueeze(1), levels)
        result.append(scores)
    return result


def mixture_nll_reference(params: Tensor, x: Tensor, *, levels: int = 256) -> Tensor:
    """As `mixture_nll`, differentiated by autograd; arguments are trusted."""
    flat = params if params.dtype == torch.float64 else params.float()
    nats = -torch.logsumexp(joint_scores(flat, x, levels)[-1], dim=1)
    valid = ((x >= 0) & (x < levels)).all(dim=1)
    return nats * torch.where(valid, 1.0, math.nan)


def _log_widths(log_scale: Tensor, levels: int) -> Tensor:
    """log(1 - exp(-w)) for the width w of a bin in units of the scale."""
    log_w = math.log(2 / (levels - 1)) - log_scale
    # Below exp(-40) the result is log w to the last bit, and 1 - exp(-w) would underflow for huge scales.
    tiny = log_w < -40
    w = torch.exp(torch.where(tiny, log_w.new_zeros(()), log_w))
    return torch.where(tiny, log_w, torch.log(-torch.expm1(-w)))
