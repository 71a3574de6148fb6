"""Sampling of discretized logistic mixtures in plain torch, in float64.

`draw_level` is what every torch sampler draws with; kernels are compared with `mixture_sample_reference`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .gumbel import choose, logistic
from .mixture_loss_reference import LOG_SCALE_FLOOR, Parts, component_means, signed, split


def draw_level(
    parts: Parts,
    channel: int,
    values: Sequence[Tensor],
    component: Tensor,
    uniforms: Tensor,
    levels: int,
    temperature: float,
) -> Tensor:
    """The value of one channel, by the logistic of one component each, in levels; neither rounded nor clipped.

    Args:
        parts: float64, of N mixtures; any further axes are positions.
        channel: which.
        values: the channels before it in [-1, 1], with a component axis.
        component: int64 (N, ...); -1 gives NaN.
        uniforms: float64 (N, ...), strictly between 0 and 1.
        levels: at least 2.
        temperature: at least 0; scales are multiplied by it after their floor.

    Returns:
        float64 (N, ...).
    """
    chosen = component.clamp(min=0).unsqueeze(1)
    mean = component_means(parts, channel, values).gather(1, chosen).squeeze(1)
    scale = parts.log_scales[channel].gather(1, chosen).squeeze(1).clamp(min=LOG_SCALE_FLOOR).exp()
    value = mean + temperature * scale * logistic(uniforms)
    return ((value + 1) * (0.5 * (levels - 1))).masked_fill(component < 0, math.nan)


def mixture_sample_reference(
    params: Tensor, uniforms: Tensor, *, levels: int = 256, temperature: float = 1.0
) -> Tensor:
    """As `mixture_sample`; arguments are trusted."""
    channels = uniforms.shape[1]
    parts = split(params.detach().double(), channels)
    mixtures = parts.logits.shape[1]
    noise = uniforms.movedim(-1, 2)
    component = choose(parts.logits, noise[:, 0, :mixtures], temperature)
    drawn: list[Tensor] = []
    for channel in range(channels):
        values = [signed(level, levels).unsqueeze(1) for level in drawn]
        level = draw_level(parts, channel, values, component, noise[:, channel, mixtures], levels, temperature)
        drawn.append(level.round().clamp(0, levels - 1))
    return torch.stack(drawn, dim=1).nan_to_num(nan=-1.0).to(torch.int64)
