"""Fast exact sampling from PixelCNN-family models."""

from __future__ import annotations

from pixelfast import errors, models, shipped
from pixelfast.causality import CausalityReport, check_causality
from pixelfast.checkpoints import load, save
from pixelfast.errors import (
    BackendError,
    CausalityError,
    CheckpointError,
    PixelfastError,
    ShapeError,
    UnsupportedModelError,
)
from pixelfast.likelihoods import Bernoulli, Categorical, DiagonalGaussian, DiscretizedLogisticMixture
from pixelfast.naive import naive_sample
from pixelfast.sampler import Sampler, compile
from pixelfast.stages import StagedSampler

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Bernoulli",
    "Categorical",
    "CausalityError",
    "CausalityReport",
    "CheckpointError",
    "DiagonalGaussian",
    "DiscretizedLogisticMixture",
    "PixelfastError",
    "Sampler",
    "ShapeError",
    "StagedSampler",
    "UnsupportedModelError",
    "__version__",
    "check_causality",
    "compile",
    "errors",
    "load",
    "models",
    "naive_sample",
    "save",
    "shipped",
]
