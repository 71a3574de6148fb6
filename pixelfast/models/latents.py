"""Gaussian latents: what draws them, how they are drawn in training, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pixelfast.likelihoods import DiagonalGaussian
from pixelfast.stage import Drawn

LOG_SCALE_LIMIT = 5.0
"""Networks give log-scales within this of 0, so that no first step of training leaves the numbers behind."""

EVALUATION_SEED = 20131220
"""In evaluation the noise is the same at every call."""


class UnitGaussian(nn.Module):
    """The prior of latents that depend on nothing: independent and standard normal.

    As a network that samples: x, float (N, C, h, w), is not looked at; parameters (N, 2 C, h, w), all zero.
    """

    input = "real"
    condition_example = None

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape = (channels, height, width)
        self.likelihood = DiagonalGaussian()

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 2 * self.shape[0], *self.shape[1:])


@dataclass(frozen=True)
class Bound:
    """The parts of a bound on -log p(x), in nats, each (N,): the negative of the evidence's lower bound (ELBO).

    distortion: of the image given the latents drawn for it. kl: of each stage's latents, by the stage's name: what the
    posterior of the image differs by from the prior (Kullback-Leibler).
    """

    distortion: Tensor
    kl: Mapping[str, Tensor]

    @property
    def total(self) -> Tensor:
        return self.distortion + sum(self.kl.values(), torch.zeros_like(self.distortion))


def limited(params: Tensor) -> Tensor:
    """A network's outputs (N, 2 C, h, w) as means and log-scales, the latter within `LOG_SCALE_LIMIT` of 0."""
    mean, log_scale = params.chunk(2, dim=1)
    return torch.cat([mean, LOG_SCALE_LIMIT * torch.tanh(log_scale / LOG_SCALE_LIMIT)], dim=1)


def drawn_from(params: Tensor, training: bool) -> Tensor:
    """Latents (N, C, h, w) of (N, 2 C, h, w), with gradients in `params` (Kingma and Welling 2014, section 2.4)."""
    mean, log_scale = params.chunk(2, dim=1)
    if training:
        noise = torch.randn_like(mean)
    else:
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
    return mean + torch.exp(log_scale) * noise


def kl_divergence(posterior: Tensor, prior: Tensor) -> Tensor:
    """KL of diagonal Gaussians (N, 2 C, h, w) from others, in nats, summed over everything but images: (N,)."""
    mean, log_scale = posterior.chunk(2, dim=1)
    other_mean, other_log_scale = prior.chunk(2, dim=1)
    apart = (mean - other_mean).square() * torch.exp(-2 * other_log_scale)
    wider = torch.exp(2 * (log_scale - other_log_scale))
    return (other_log_scale - log_scale + 0.5 * (wider + apart - 1)).flatten(1).sum(1)


def _what_was_drawn(name: str, drawn: Drawn, condition: Any) -> Tensor:
    return drawn[name]


def condition_on(name: str) -> Callable[[Drawn, Any], Any]:
    """The condition of a stage: what the stage of this name drew."""
    return partial(_what_was_drawn, name)
