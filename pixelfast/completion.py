"""Completing images with models that draw latents first: the latents have to fit what is given.

What is missing and the latents are drawn in turn, each given the other, as Rezende, Mohamed and Wierstra 2014
("Stochastic Backpropagation and Approximate Inference in Deep Generative Models") do for missing data: latents from the
prior and pixels given them begin; then latents from the posterior of the completed image, pixels given them, and so on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from . import rng
from .errors import PixelfastError
from .likelihoods import DiagonalGaussian
from .stage import PIXELS

TURNS = 5
"""So often latents are drawn again. Of binary digits whose upper half is given, log p of that half given the latents
is, for a small VAE, -288 nats with those of the prior, -38 after one turn, -31 after five and -28 after eleven; for a
small PixelVAE -46, -34, -33 and -32."""


class Posterior:
    """A copy of a model's `posterior`, which draws the same latents for an image whatever it is computed with.

    One image at a time on one thread in float64, as decoders run. alone: a context in which torch has one thread.

    Raises PixelfastError for a model that has none.
    """

    def __init__(self, model: Any, alone: Callable[[], AbstractContextManager[None]]) -> None:
        if not hasattr(model, "posterior") or len(model.stages) < 2 or model.stages[-1].name != PIXELS:
            raise PixelfastError(
                f"{type(model).__name__} cannot tell which latents fit a part of an image: leave known, mask out"
            )
        self._model = copy.deepcopy(model).cpu().double().eval()
        self._alone = alone
        stage = model.stages[-2]
        self.name = stage.name
        self._stream = stage.stream
        self._shape = tuple(stage.network.shape)

    def draw(
        self, images: torch.Tensor, seed: int, sample_ids: Sequence[int] | None, temperature: float, turn: int
    ) -> torch.Tensor:
        """Latents float32 (N, c, h, w) of images, integers (N, C, H, W). Every turn, 1 and on, has noise of its own."""
        if not len(images):
            return torch.zeros(0, *self._shape)
        ids = range(len(images)) if sample_ids is None else sample_ids
        channels, height, width = self._shape
        count = math.prod(self._shape)
        # The numbers of turn 0 are those that the prior draws.
        noise = rng.uniforms(seed, ids, range(turn * count, (turn + 1) * count), 2, self._stream)
        noise = noise.view(len(images), height, width, channels, 2).permute(0, 3, 1, 2, 4)
        return DiagonalGaussian().sample(self._params(images), noise, temperature)

    def means(self, images: torch.Tensor) -> torch.Tensor:
        """The likeliest latents float32 (N, c, h, w) of images, integers (N, C, H, W)."""
        if not len(images):
            return torch.zeros(0, *self._shape)
        return self._params(images).chunk(2, dim=1)[0].float()

    def _params(self, images: torch.Tensor) -> torch.Tensor:
        """float64 (N, 2 c, h, w)."""
        with self._alone(), torch.no_grad():
            return torch.cat([self._model.posterior(image) for image in images.cpu().long().split(1)])
