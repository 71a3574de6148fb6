"""Binary images: one logit per number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from pixelfast.likelihoods.base import (
    Likelihood,
    PixelState,
    at_least_float32,
    check_batch,
    check_images,
    check_params,
)
from pixelfast.ops.gumbel import logistic


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Numbers that are 0 or 1; `params` are the logits of 1, (N, C, H, W)."""

    levels: int = field(default=2, init=False, repr=False)

    def parameters(self, channels: int) -> int:
        return channels

    def flatten(self, params: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        check_params(params, [tuple(shape)], f"{self} for images {tuple(shape)}")
        return params

    def needs(self, channels: int) -> list[list[int]]:
        return [[channel] for channel in range(channels)]

    def draws(self, channels: int) -> int:
        return 1

    def log_prob(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        check_images(x, self.levels)
        logits = at_least_float32(self.flatten(params, x.shape[1:]))
        check_batch(logits, x)
        return F.logsigmoid(torch.where(x > 0, logits, -logits))

    def pmf(self, params: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        channels = params.shape[1] if params.ndim == 4 else 1
        logits = at_least_float32(self.flatten(params, (channels, *params.shape[-2:])))
        return torch.sigmoid(torch.stack([-logits, logits], dim=1))

    def draw(
        self,
        channel: int,
        params: torch.Tensor,
        pixel: PixelState,
        uniforms: torch.Tensor,
        temperature: float = 1.0,
        mode: str = "exact",
    ) -> torch.Tensor:
        # logit / T + noise > 0, multiplied by T so that T = 0 needs no division.
        score = params[:, 0].double() + temperature * logistic(uniforms[:, 0])
        return torch.where(score.isnan(), score, (score > 0).double())
