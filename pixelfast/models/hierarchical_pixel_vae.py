"""PixelVAE with several levels of latents, each drawn by PixelCNN layers given the level above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixelfast.errors import PixelfastError
from pixelfast.likelihoods import DiagonalGaussian
from pixelfast.likelihoods.base import at_least_float32
from pixelfast.models import checks
from pixelfast.models.autoencoder_parts import Decoder, Encoder
from pixelfast.models.conditional_layers import ConditionalLayers
from pixelfast.models.latents import Bound, UnitGaussian, condition_on, drawn_from, kl_divergence, limited
from pixelfast.models.pixel_likelihood import pixel_likelihood, signed
from pixelfast.models.vector_coders import MAX_HALVINGS, Flat, Unflat, halved
from pixelfast.stage import Stage

MAX_LEVELS = 8


class HierarchicalPixelVAE(nn.Module):
    """PixelVAE with at least two levels of latents (Gulrajani et al. 2017, "PixelVAE: A Latent Variable Model for
    Natural Images").

    The highest level is a standard normal vector. Every other one is a map whose positions are normal given the level
    above and the positions before them, by gated PixelCNN layers; the pixels likewise given the lowest map. The
    posterior of every level is read off one encoder. `forward` takes integers (N, C, H, W). `compile` samples in
    stages, from "latents_L" down to "latents_1", and "pixels".

    Arguments:
        shape, likelihood, levels, mixtures: see `VAE`.
        latents: channels of every level of latents, from the lowest one up; the last is a vector's length.
        halvings: of height and width below every level but the highest, from the image up.
        hidden, blocks: features and residual blocks of encoder and decoders.
        layers: gated PixelCNN layers that draw the pixels, after a first masked 7x7 convolution.
        latent_layers: the same for every map of latents.
        features: of the decoders' maps.
        pixel_hidden: features of the layers.
        free_nats: of every level's divergence, which training does not charge (Kingma et al. 2016, "Improved
            Variational Inference with Inverse Autoregressive Flow", section on free bits). Without, the pixels' layers
            learn first and leave the latents nothing to say.

    Raises ShapeError for a bad shape or input, PixelfastError for any other bad argument.
    """

    loss_unit = "nats"
    input = "levels"
    condition_example = None

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        likelihood: str = "bernoulli",
        levels: int = 2,
        mixtures: int = 5,
        latents: Sequence[int] = (4, 32),
        halvings: Sequence[int] = (2,),
        hidden: int = 64,
        blocks: int = 1,
        layers: int = 1,
        latent_layers: int = 1,
        features: int = 32,
        pixel_hidden: int = 32,
        free_nats: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape = checks.image_shape(shape)
        latents = checks.integers("latents", latents, 1, checks.MAX_WIDTH, MAX_LEVELS)
        halvings = checks.integers("halvings", halvings, 1, MAX_HALVINGS, MAX_LEVELS)
        if len(latents) != len(halvings) + 1:
            raise PixelfastError(
                f"latents has {len(latents)} levels and halvings {len(halvings)}: it must have one fewer, since the "
                "highest level is a vector"
            )
        hidden = checks.integer("hidden", hidden, 1, checks.MAX_WIDTH)
        blocks = checks.integer("blocks", blocks, 0, 128)
        layers = checks.integer("layers", layers, 0, 128)
        latent_layers = checks.integer("latent_layers", latent_layers, 0, 128)
        features = checks.integer("features", features, 1, checks.MAX_WIDTH)
        self.free_nats = checks.number("free_nats", free_nats, 0.0, 1e6)
        self.likelihood = pixel_likelihood(likelihood, levels, mixtures, self.shape[0])
        self.levels = levels
        self.config: dict[str, Any] = {
            "shape": list(self.shape),
            "likelihood": likelihood,
            "levels": levels,
            "mixtures": mixtures,
            "latents": list(latents),
            "halvings": list(halvings),
            "hidden": hidden,
            "blocks": blocks,
            "layers": layers,
            "latent_layers": latent_layers,
            "features": features,
            "pixel_hidden": pixel_hidden,
            "free_nats": free_nats,
        }

        maps: list[tuple[int, int, int]] = []
        sides = self.shape[1:]
        for channels, times in zip(latents[:-1], halvings, strict=True):
            sides = halved(*sides, times)
            maps.append((channels, *sides))
        vector = (latents[-1], 1, 1)
        self.encoders = nn.ModuleList()
        self.posteriors = nn.ModuleList()
        for level, times in enumerate(halvings):
            below = hidden if level else self.shape[0]
            self.encoders.append(Encoder(below, hidden, blocks, hidden, hidden, times))
            self.posteriors.append(nn.Conv2d(hidden, 2 * latents[level], 1))
        self.posteriors.append(Flat((hidden, *sides), 2 * vector[0]))

        def network(
            of: tuple[int, int, int], given: tuple[int, int, int], kind: Any, times: int | None, layers: int
        ) -> ConditionalLayers:
            width = features if layers else kind.parameters(of[0])
            decoder: nn.Module
            if times is None:
                middle = nn.Sequential(nn.ReLU(), nn.Conv2d(hidden, width, 3, padding=1))
                decoder = nn.Sequential(Unflat(given[0], (hidden, *of[1:])), *middle)
            else:
                decoder = Decoder(given[0], hidden, blocks, hidden, width, times)
            return ConditionalLayers(of, kind, given, decoder, features, layers, pixel_hidden)

        self.prior = UnitGaussian(vector)
        self.latent_networks = nn.ModuleList(
            network(of, given, DiagonalGaussian(), times, latent_layers)
            for of, given, times in zip(maps, [*maps[1:], vector], [*halvings[1:], None], strict=True)
        )
        self.pixels = network(self.shape, maps[0], self.likelihood, halvings[0], layers)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What samples: the latents from the highest level down, then pixels."""
        top = len(self.latent_networks) + 1
        stages = [Stage(_name(top), self.prior)]
        for level in range(top - 1, 0, -1):
            stages.append(Stage(_name(level), self.latent_networks[level - 1], condition_on(_name(level + 1))))
        return *stages, Stage("pixels", self.pixels, condition_on(_name(1)))

    def posterior(self, images: Tensor) -> Tensor:
        """Means and log-scales (N, 2 C_1, h, w) of the lowest latents of images, integers (N, C, H, W)."""
        return self._posteriors(images)[0]

    def bound(self, images: Tensor) -> Bound:
        """The bound on -log p of images, integers (N, C, H, W), at one draw of their latents.

        The divergence of a map of latents is that of every position, given the level above and the positions before
        it as they were drawn.
        """
        params, kl = self._given_a_draw(images)
        return Bound(-self.likelihood.log_prob(params, images).flatten(1).sum(1), kl)

    def loss(self, images: Tensor, condition: None = None) -> Tensor:
        """What training minimises: nats per image, the mean of the bound; in training mode a level's divergence counts
        as `free_nats` at least."""
        params, kl = self._given_a_draw(images)
        least = self.free_nats if self.training else 0.0
        return self.likelihood.loss(params, images) + sum(part.mean().clamp(min=least) for part in kl.values())

    def forward(self, images: Tensor) -> Tensor:
        """The pixels' parameters (N, P, H, W) at the mean of the images' latents; images integers (N, C, H, W)."""
        return self.pixels(self._signed(images), self.posterior(images).chunk(2, dim=1)[0])

    def _given_a_draw(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The pixels' parameters (N, P, H, W) at drawn latents, and the divergence of every level (N,), in nats."""
        posteriors = self._posteriors(images)
        drawn = [drawn_from(params, self.training) for params in posteriors]
        priors = [
            network(own, above) for network, own, above in zip(self.latent_networks, drawn[:-1], drawn[1:], strict=True)
        ]
        priors.append(torch.zeros_like(posteriors[-1]))
        kl = {
            _name(level): kl_divergence(at_least_float32(posterior), at_least_float32(prior))
            for level, (posterior, prior) in enumerate(zip(posteriors, priors, strict=True), start=1)
        }
        return at_least_float32(self.pixels(self._signed(images), drawn[0])), dict(reversed(kl.items()))

    def _posteriors(self, images: Tensor) -> list[Tensor]:
        """Means and log-scales of every level, from the lowest one up."""
        checks.integer_images(images, self.shape[0])
        found, features = [], self._signed(images)
        for number, read in enumerate(self.posteriors):
            if number < len(self.encoders):
                features = torch.relu(self.encoders[number](features))
            found.append(limited(read(features)))
        return found

    def _signed(self, images: Tensor) -> Tensor:
        return signed(images, self.levels, next(self.encoders.parameters()))


def _name(level: int) -> str:
    """Of the stage of a level of latents, counted from 1."""
    return f"latents_{level}"
