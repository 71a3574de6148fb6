"""The likelihoods that decoders of images give their pixels, by name."""

from __future__ import annotations

from torch import Tensor

from pixelfast.errors import PixelfastError
from pixelfast.likelihoods import Bernoulli, DiscretizedLogisticMixture, Likelihood
from pixelfast.models import checks

LIKELIHOODS = ("bernoulli", "mixture")


def pixel_likelihood(name: str, levels: int, mixtures: int, channels: int) -> Likelihood:
    """Bernoulli for two levels, or a discretized logistic mixture. Raises PixelfastError for what does not fit."""
    name = checks.choice("likelihood", name, LIKELIHOODS)
    levels = checks.integer("levels", levels, 2, 1 << 16)
    if name == "bernoulli":
        if levels != 2:
            raise PixelfastError(f"likelihood='bernoulli' is for 2 levels, not {levels}")
        return Bernoulli()
    if channels not in (1, 3):
        raise PixelfastError(f"likelihood='mixture' is for 1 or 3 channels, not {channels}")
    return DiscretizedLogisticMixture(checks.integer("mixtures", mixtures, 1, 1 << 10), levels)


def signed(images: Tensor, levels: int, like: Tensor) -> Tensor:
    """Integers (N, C, H, W) scaled to [-1, 1], in the dtype of `like`."""
    return images.to(like.dtype) * (2 / (levels - 1)) - 1
