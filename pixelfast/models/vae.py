"""VAE: images from standard normal latents, pixels independent of each other given these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pixelfast.models import checks
from pixelfast.models.conditional_layers import ConditionalLayers
from pixelfast.models.one_level import OneLevel
from pixelfast.models.pixel_likelihood import pixel_likelihood
from pixelfast.models.vector_coders import Coding


class VAE(OneLevel):
    """Variational autoencoder (Kingma and Welling 2014, "Auto-Encoding Variational Bayes"); with kl_weight=0 a plain
    autoencoder, whose latents follow no distribution that could be sampled.

    `forward` takes integers (N, C, H, W). `compile` samples in two stages, "latents" and "pixels".

    Arguments:
        shape: (C, H, W) of the images; for a convolutional network H and W multiples of 2**halvings.
        likelihood: of the pixels, "bernoulli" (levels=2) or "mixture" (1 or 3 channels).
        levels, mixtures: see `DiscretizedLogisticMixture`.
        latents: length of the latent vector.
        network: of encoder and decoder, "convolutional" or "mlp".
        hidden, blocks, halvings: see `Coding`.
        kl_weight: of the divergence from the prior in the loss; 1 for the bound on the likelihood.

    Raises ShapeError for a bad shape or input, PixelfastError for any other bad argument.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        likelihood: str = "bernoulli",
        levels: int = 2,
        mixtures: int = 5,
        latents: int = 32,
        network: str = "convolutional",
        hidden: int = 64,
        blocks: int = 1,
        halvings: int = 2,
        kl_weight: float = 1.0,
    ) -> None:
        shape = checks.image_shape(shape)
        latents = checks.integer("latents", latents, 1, checks.MAX_WIDTH)
        coding = Coding(network, hidden, blocks, halvings)
        pixels = pixel_likelihood(likelihood, levels, mixtures, shape[0])
        decoder = coding.decoder(latents, (pixels.parameters(shape[0]), *shape[1:]))
        config: dict[str, Any] = {
            "shape": list(shape),
            "likelihood": likelihood,
            "levels": levels,
            "mixtures": mixtures,
            "latents": latents,
            "network": network,
            "hidden": hidden,
            "blocks": blocks,
            "halvings": halvings,
            "kl_weight": kl_weight,
        }
        network_of_pixels = ConditionalLayers(shape, pixels, (latents, 1, 1), decoder, 0, 0, 1)
        super().__init__(coding.encoder(shape, 2 * latents), network_of_pixels, kl_weight, config)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Images, integers (N, C, H, W), as they are likeliest given the means of their latents: int64 likewise."""
        params = self(images)
        # Without temperature the noise decides nothing.
        noise = torch.full((*images.shape, self.likelihood.draws(self.shape[0])), 0.5, dtype=torch.float64)
        return self.likelihood.sample(params, noise.to(params.device), temperature=0.0)
