"""Random images of any likelihood."""

from __future__ import annotations

import numpy as np
import torch

from pixelfast.likelihoods import Likelihood


def random_images(likelihood: Likelihood, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Levels, int64, or real numbers, float32, of the given shape."""
    generator = torch.Generator().manual_seed(seed)
    if likelihood.continuous:
        return torch.randn(shape, generator=generator)
    return torch.randint(likelihood.levels, shape, generator=generator)


def random_array(likelihood: Likelihood, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """The same as an array."""
    if likelihood.continuous:
        return generator.normal(size=shape).astype(np.float32)
    return generator.integers(likelihood.levels, size=shape)
