"""The discretized logistic mixture of PixelCNN++.

Salimans, Karpathy, Chen, Kingma, "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture
Likelihood and Other Modifications", ICLR 2017, equations 1 to 3. Two things differ from the published code,
both on purpose: the probability of a bin is computed in a form that is accurate for every bin (there is no
switch to the density where it is small), and mode "exact" samples this very distribution, see
`DiscretizedLogisticMixture.draw`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.likelihoods.base import (
    Likelihood,
    PixelState,
    at_least_float32,
    check_batch,
    check_images,
    check_levels,
    check_params,
)
from pixelfast.ops import mixture_nll, mixture_sample
from pixelfast.ops.gumbel import choose
from pixelfast.ops.mixture_loss_reference import (
    LOG_SCALE_FLOOR,
    Parts,
    component_means,
    joint_scores,
    log_bins,
    planes_per_component,
    signed,
    split,
)
from pixelfast.ops.mixture_sample_reference import draw_level

REFERENCE_MARGIN = 1e-5
"""Mode "reference" keeps uniforms this far from 0 and 1, as the published sampler does."""


@dataclass(frozen=True)
class DiscretizedLogisticMixture(Likelihood):
    """Mixture of `mixtures` logistics per pixel, integrated over each of `levels` bins of [-1, 1].

    `params`, for M = mixtures: three channels (N, 10 M, H, W) = [logits M | for r, g, b: means M,
    log-scales M, coefficients M]; one channel (N, 3 M, H, W) = [logits M | means M | log-scales M]. The
    component is shared by the channels of a pixel, and the means of green and blue move linearly with the
    channels before them. The outermost bins reach to infinity.
    """

    mixtures: int = 10
    levels: int = 256

    def __post_init__(self) -> None:
        check_levels(self.levels)
        if isinstance(self.mixtures, bool) or not isinstance(self.mixtures, int) or self.mixtures < 1:
            raise PixelfastError(f"mixtures is {self.mixtures!r}; it must be at least 1, a whole number")

    def parameters(self, channels: int) -> int:
        if channels not in (1, 3):
            raise ShapeError(f"{self} is for images of 1 or 3 channels, not {channels}")
        return planes_per_component(channels) * self.mixtures

    def flatten(self, params: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        accepted = (self.parameters(shape[0]), *shape[1:])
        check_params(params, [accepted], f"{self} for images {tuple(shape)}")
        return params

    def needs(self, channels: int) -> list[list[int]]:
        return [list(range(self.parameters(channels))) for _ in range(channels)]

    def draws(self, channels: int) -> int:
        return self.mixtures + 1

    def log_prob(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        totals = [torch.logsumexp(scores, dim=1) for scores in self._scores(params, x)]
        joint = torch.stack(totals, dim=1)
        return torch.cat([joint[:, :1], joint[:, 1:] - joint[:, :-1]], dim=1)

    def loss(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        check_images(x, self.levels)
        flat = self.flatten(params, x.shape[1:])
        check_batch(flat, x)
        return mixture_nll(flat, x, levels=self.levels).sum() / x.shape[0]

    def pmf(self, params: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        channels = 3 if params.ndim == 4 and params.shape[1] == self.parameters(3) else 1
        shape = (channels, *params.shape[-2:])
        if x is None:
            if channels > 1:
                raise ShapeError("the pmf of a channel depends on those before it: x is needed, (N, C, H, W)")
            x = torch.zeros(params.shape[0], *shape, dtype=torch.int64, device=params.device)
        check_images(x, self.levels)
        flat = at_least_float32(self.flatten(params, shape))
        check_batch(flat, x)
        parts = split(flat, channels)
        values = signed(x.to(flat.dtype), self.levels).unsqueeze(2)
        every_level = torch.arange(self.levels, device=params.device).view(1, 1, -1, 1, 1)
        scores = torch.log_softmax(parts.logits, dim=1)
        result = []
        for channel in range(channels):
            mean = component_means(parts, channel, values.unbind(1))
            log_scale = parts.log_scales[channel].clamp(min=LOG_SCALE_FLOOR)
            bins = log_bins(mean.unsqueeze(2), log_scale.unsqueeze(2), every_level, self.levels)
            result.append(torch.softmax(scores, dim=1).unsqueeze(2).mul(bins.exp()).sum(1))
            scores = scores + log_bins(mean, log_scale, x[:, channel].unsqueeze(1), self.levels)
        return torch.stack(result, dim=2)

    def draw(
        self,
        channel: int,
        params: torch.Tensor,
        pixel: PixelState,
        uniforms: torch.Tensor,
        temperature: float = 1.0,
        mode: str = "exact",
    ) -> torch.Tensor:
        """As `Likelihood.draw`; draws 0 .. M - 1 choose the component, draw M is the logistic.

        Mode "exact": the component is chosen at channel 0 and kept, but after a channel that was given it
        is drawn again from its posterior given all channels before (at temperature 0, the most probable one
        of the model itself); the value is rounded to its level. Mode "reference" is the published sampler:
        uniforms are kept 1e-5 from 0 and 1, the component is chosen at channel 0 only (so channel 0 must be
        drawn even if it is given), and the value is clipped to [-1, 1] but not rounded.
        """
        m = self.mixtures
        if mode == "reference":
            uniforms = uniforms.clamp(REFERENCE_MARGIN, 1 - REFERENCE_MARGIN)
        parts = split(params.double(), pixel.values.shape[1])
        values = signed(pixel.values, self.levels).unsqueeze(2).unbind(1)
        if channel == 0:
            pixel.component = choose(parts.logits, uniforms[:, :m], temperature)
        elif mode == "exact":
            given = pixel.known[:, channel - 1]
            if bool(given.any()):
                posterior = self._posterior(channel, parts, pixel.values, temperature)
                again = choose(posterior, uniforms[:, :m], temperature)
                pixel.component = torch.where(given, again, pixel.component)
        level = draw_level(parts, channel, values, pixel.component, uniforms[:, m], self.levels, temperature)
        return (level if mode == "reference" else level.round()).clamp(0, self.levels - 1)

    def draw_all(self, flat: torch.Tensor, uniforms: torch.Tensor, temperature: float, mode: str) -> torch.Tensor:
        if mode == "exact":
            return mixture_sample(flat, uniforms, levels=self.levels, temperature=temperature)
        return super().draw_all(flat, uniforms, temperature, mode)

    def _posterior(self, channel: int, parts: Parts, levels: torch.Tensor, temperature: float) -> torch.Tensor:
        """Unnormalised log-posterior of the component given the channels before, times the temperature.

        Of the distribution that the temperature defines; at temperature 0, of the model's own. (N, M),
        float64.
        """
        values = signed(levels, self.levels).unsqueeze(2).unbind(1)
        evidence = torch.zeros_like(parts.logits)
        for earlier in range(channel):
            mean = component_means(parts, earlier, values)
            log_scale = parts.log_scales[earlier].clamp(min=LOG_SCALE_FLOOR)
            if temperature > 0:
                log_scale = log_scale + math.log(temperature)
            evidence = evidence + log_bins(mean, log_scale, levels[:, earlier].unsqueeze(1), self.levels)
        return parts.logits + (temperature if temperature > 0 else 1.0) * evidence

    def _scores(self, params: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
        """For each channel c, log p(component, x_0 .. x_c), each (N, M, H, W)."""
        check_images(x, self.levels)
        flat = at_least_float32(self.flatten(params, x.shape[1:]))
        check_batch(flat, x)
        return joint_scores(flat, x, self.levels)
