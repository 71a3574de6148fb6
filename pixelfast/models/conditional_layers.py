"""Gated PixelCNN layers on top of a decoder: how an image, or a map of latents, goes on given the latents above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.likelihoods import Likelihood
from pixelfast.models import checks
from pixelfast.models.causal_conv import HorizontalConv, VerticalConv
from pixelfast.models.conditioning import ConditionKind
from pixelfast.models.gated_pixelcnn import GatedBlock
from pixelfast.models.latents import limited

STEM = 7
"""Width of the first masked convolution, which reads the image itself."""
KERNEL = 3
"""Width of the kernels after it."""


class ConditionalLayers(nn.Module):
    """A network that samples given latents z (N, *latent_shape): (x, z) -> parameters (N, P, H, W).

    x: float (N, C, H, W), levels scaled to [-1, 1] or real numbers, as `input` says. What is made of z alone depends on
    no number, and is computed once for an image.

    Arguments:
        shape: (C, H, W) of what is sampled.
        likelihood: of its numbers; channels of a position do not see each other.
        latent_shape: of z.
        decoder: z -> features (N, `features`, H, W), which the layers read beside the image; without layers the
            parameters themselves, (N, P, H, W). None: z, a vector, goes into the layers as a bias before their gates.
        features: of the decoder.
        layers: gated PixelCNN layers after a first masked convolution of the image; 0 only with a decoder.
        hidden: features of the layers.
    """

    def __init__(
        self,
        shape: Sequence[int],
        likelihood: Likelihood,
        latent_shape: Sequence[int],
        decoder: nn.Module | None,
        features: int,
        layers: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.shape = checks.image_shape(shape)
        self.likelihood = likelihood
        self.input = "real" if likelihood.continuous else "signed"
        self.latent_shape = tuple(latent_shape)
        self.decoder = decoder
        layers = checks.integer("layers", layers, 0, 128)
        hidden = checks.integer("pixel_hidden", hidden, 1, checks.MAX_WIDTH)
        if decoder is None and layers == 0:
            raise PixelfastError("latents as a bias need layers: layers must be at least 1")
        channels = self.shape[0]
        parameters = likelihood.parameters(channels)
        self.blocks = nn.ModuleList()
        if layers == 0:
            return
        vector = None if decoder is not None else self.latent_shape[0]
        condition = ConditionKind(None, None, vector)
        self.stem_vertical = VerticalConv(channels, hidden, STEM, include_row=False)
        self.stem_horizontal = HorizontalConv(channels, hidden, STEM, include_pixel=False)
        if decoder is not None:
            self.join_vertical = nn.Conv2d(hidden + features, hidden, 1)
            self.join_horizontal = nn.Conv2d(hidden + features, hidden, 1)
        self.blocks.extend(GatedBlock(hidden, KERNEL, 1, None, condition) for _ in range(layers))
        self.head = nn.Conv2d(hidden, parameters, 1)

    @property
    def condition_example(self) -> Tensor:
        """Latents of zero for one image."""
        return torch.zeros(1, *self.latent_shape)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        checks.float_images(x, self.shape[0])
        if tuple(z.shape) != (len(x), *self.latent_shape):
            raise ShapeError(f"the latents must be {(len(x), *self.latent_shape)}, not {tuple(z.shape)}")
        params = self._layers(x, z) if self.blocks else self._decoded(z)
        return limited(params) if self.likelihood.continuous else params

    def _decoded(self, z: Tensor) -> Tensor:
        assert self.decoder is not None
        return self.decoder(z)

    def _layers(self, x: Tensor, z: Tensor) -> Tensor:
        v: Any = self.stem_vertical(x)
        h = self.stem_horizontal(x)
        condition = None
        if self.decoder is None:
            condition = z.flatten(1)
        else:
            features = self.decoder(z)
            v = self.join_vertical(torch.cat([v, features], dim=1))
            h = self.join_horizontal(torch.cat([h, features], dim=1))
        for block in self.blocks:
            v, h = block(v, h, condition)
        return self.head(nn.functional.elu(h))
