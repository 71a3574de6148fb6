"""A free distribution over the levels of every number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pixelfast.errors import ShapeError
from pixelfast.likelihoods.base import (
    Likelihood,
    PixelState,
    at_least_float32,
    check_batch,
    check_images,
    check_levels,
    check_params,
)
from pixelfast.ops.gumbel import choose


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Softmax over `levels` classes per number; `params` are logits (N, levels, C, H, W).

    For one channel (N, levels, H, W) is accepted too. In the canonical layout the channel is the slow index:
    c * levels + level.
    """

    levels: int = 256

    def __post_init__(self) -> None:
        check_levels(self.levels)

    def parameters(self, channels: int) -> int:
        return channels * self.levels

    def flatten(self, params: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        by_class = self._by_class(params, shape)
        return by_class.transpose(1, 2).reshape(by_class.shape[0], -1, *by_class.shape[3:])

    def unflatten(self, flat: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        return flat.unflatten(1, (shape[0], self.levels)).transpose(1, 2)

    def needs(self, channels: int) -> list[list[int]]:
        return [list(range(c * self.levels, (c + 1) * self.levels)) for c in range(channels)]

    def draws(self, channels: int) -> int:
        return self.levels

    def log_prob(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        check_images(x, self.levels)
        logits = at_least_float32(self._by_class(params, x.shape[1:]))
        check_batch(logits, x)
        return -F.cross_entropy(logits, x.long(), reduction="none")

    def pmf(self, params: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        if params.ndim not in (4, 5):
            raise ShapeError(
                f"params have shape {tuple(params.shape)}; {self} takes (N, {self.levels}, C, H, W) "
                f"or, for one channel, (N, {self.levels}, H, W)"
            )
        shape = params.shape[2:] if params.ndim == 5 else (1, *params.shape[2:])
        return torch.softmax(at_least_float32(self._by_class(params, shape)), dim=1)

    def draw(
        self,
        channel: int,
        params: torch.Tensor,
        pixel: PixelState,
        uniforms: torch.Tensor,
        temperature: float = 1.0,
        mode: str = "exact",
    ) -> torch.Tensor:
        level = choose(params.double(), uniforms, temperature)
        return level.double().masked_fill(level < 0, math.nan)

    def _by_class(self, params: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """`params` as (N, levels, C, H, W), a view."""
        channels, height, width = shape
        accepted: list[tuple[int, ...]] = [(self.levels, channels, height, width)]
        if channels == 1:
            accepted.append((self.levels, height, width))
        check_params(params, accepted, f"{self} for images {tuple(shape)}")
        return params if params.ndim == 5 else params.unsqueeze(2)
