"""Real numbers, each normal: continuous latents.

Noise is the transform of Box and Muller, "A Note on the Generation of Random Normal Deviates" (1958).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.likelihoods.base import (
    Likelihood,
    PixelState,
    at_least_float32,
    check_batch,
    check_params,
)

LOG_ROOT_OF_TAU = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class DiagonalGaussian(Likelihood):
    """Real numbers, independent and normal given those before them; for continuous latents, with input="real".

    `params` are (N, 2 C, H, W): the C means, then the C logarithms of the standard deviations. Images are float32
    (N, C, H, W). What is drawn is rounded to float32 before anything reads it, so that an image is what the network
    saw. `log_prob` is of a density: it may be positive, and there are no bits per dimension.
    """

    levels: int = field(default=0, init=False, repr=False)

    @property
    def continuous(self) -> bool:
        return True

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def check(self, x: torch.Tensor) -> None:
        if x.ndim != 4 or not x.is_floating_point():
            raise ShapeError(
                f"images have dtype {x.dtype} and shape {tuple(x.shape)}; {self} takes floating point (N, C, H, W)"
            )
        if not bool(torch.isfinite(x.to(torch.float32)).all()):
            raise ShapeError(f"images hold NaN or numbers beyond float32; {self} takes finite ones")

    def parameters(self, channels: int) -> int:
        return 2 * channels

    def flatten(self, params: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        check_params(params, [(2 * shape[0], *shape[1:])], f"{self} for images {tuple(shape)}")
        return params

    def needs(self, channels: int) -> list[list[int]]:
        return [[channel, channels + channel] for channel in range(channels)]

    def draws(self, channels: int) -> int:
        return 2

    def log_prob(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Logarithm of the density of every number, in nats, (N, C, H, W); otherwise as `Likelihood.log_prob`."""
        self.check(x)
        mean, log_scale = at_least_float32(self.flatten(params, x.shape[1:])).chunk(2, dim=1)
        check_batch(mean, x)
        return -0.5 * ((x.to(mean.dtype) - mean) * torch.exp(-log_scale)).square() - log_scale - LOG_ROOT_OF_TAU

    def pmf(self, params: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        raise PixelfastError(f"{self} is a density and has no pmf; use log_prob")

    def draw(
        self,
        channel: int,
        params: torch.Tensor,
        pixel: PixelState,
        uniforms: torch.Tensor,
        temperature: float = 1.0,
        mode: str = "exact",
    ) -> torch.Tensor:
        """As `Likelihood.draw`: a real number, rounded to float32; at temperature 0 the mean."""
        mean, log_scale = params.double().unbind(1)
        value = mean + temperature * torch.exp(log_scale) * normal(uniforms)
        value = value.to(torch.float32).to(torch.float64)
        return torch.where(torch.isfinite(value), value, math.nan)

    def settle(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(torch.float32)


def normal(uniforms: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers (...) of float64 uniforms (..., 2) between 0 and 1."""
    radius, angle = uniforms.unbind(-1)
    return torch.sqrt(-2 * torch.log(radius)) * torch.cos(2 * math.pi * angle)
