"""Likelihoods: what a network's output means, how to score images, and how to sample them exactly."""

from pixelfast.likelihoods.base import Likelihood, PixelState
from pixelfast.likelihoods.bernoulli import Bernoulli
from pixelfast.likelihoods.categorical import Categorical
from pixelfast.likelihoods.diagonal_gaussian import DiagonalGaussian
from pixelfast.likelihoods.mixture import DiscretizedLogisticMixture

__all__ = [
    "Bernoulli",
    "Categorical",
    "DiagonalGaussian",
    "DiscretizedLogisticMixture",
    "Likelihood",
    "PixelState",
]
