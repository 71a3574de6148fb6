"""What autoencoders with one level of Gaussian latents share: their bound, their posterior and their stages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pixelfast.likelihoods.base import at_least_float32
from pixelfast.models import checks
from pixelfast.models.conditional_layers import ConditionalLayers
from pixelfast.models.latents import Bound, UnitGaussian, condition_on, drawn_from, kl_divergence, limited
from pixelfast.models.pixel_likelihood import signed
from pixelfast.stage import Stage


class OneLevel(nn.Module):
    """An encoder, standard normal latents, and what samples pixels given them.

    encoder: images float (N, C, H, W) in [-1, 1] -> (N, 2 * latents, 1, 1), means and log-scales. kl_weight: of the
    divergence in the loss; at 0 an image has one latent vector, the mean, and the model is a plain autoencoder.
    """

    loss_unit = "nats"
    input = "levels"
    condition_example = None

    def __init__(self, encoder: nn.Module, pixels: ConditionalLayers, kl_weight: float, config: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = encoder
        self.prior = UnitGaussian(pixels.latent_shape)
        self.pixels = pixels
        self.shape, self.likelihood = pixels.shape, pixels.likelihood
        self.levels = pixels.likelihood.levels
        self.kl_weight = checks.number("kl_weight", kl_weight, 0.0, 1000.0)
        self.config = config

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What samples: latents, then pixels."""
        return Stage("latents", self.prior), Stage("pixels", self.pixels, condition_on("latents"))

    def posterior(self, images: Tensor) -> Tensor:
        """Means and log-scales (N, 2 * latents, 1, 1) of the latents of images, integers (N, C, H, W)."""
        checks.integer_images(images, self.shape[0])
        return limited(self.encoder(self._signed(images)))

    def bound(self, images: Tensor) -> Bound:
        """The bound on -log p of images, integers (N, C, H, W), at one draw of their latents."""
        params, kl = self._given_a_draw(images)
        return Bound(-self.likelihood.log_prob(params, images).flatten(1).sum(1), {"latents": kl})

    def loss(self, images: Tensor, condition: None = None) -> Tensor:
        """What training minimises: nats per image, the bound's distortion and `kl_weight` times its divergence."""
        params, kl = self._given_a_draw(images)
        return self.likelihood.loss(params, images) + self.kl_weight * kl.mean()

    def _given_a_draw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels' parameters (N, P, H, W) at drawn latents, and the divergence of these (N,), in nats."""
        posterior = self.posterior(images)
        z = drawn_from(posterior, self.training) if self.kl_weight else posterior.chunk(2, dim=1)[0]
        params = at_least_float32(self.pixels(self._signed(images), z))
        posterior = at_least_float32(posterior)
        return params, kl_divergence(posterior, torch.zeros_like(posterior))

    def forward(self, images: Tensor) -> Tensor:
        """The pixels' parameters (N, P, H, W) at the mean of the images' latents; images integers (N, C, H, W)."""
        return self.pixels(self._signed(images), self.posterior(images).chunk(2, dim=1)[0])

    def _signed(self, images: Tensor) -> Tensor:
        return signed(images, self.levels, next(self.encoder.parameters()))
