"""What an autoencoder with codes is worth: how well it reconstructs, how it uses its codes, what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelfast.models import VQVAE, VQVAEWithPrior
from pixelfast.models.vector_quantizer import perplexity
from pixelfast.training.evaluate import mean_loss, network_input


@dataclass(frozen=True)
class CodeFigures:
    """squared_error: mean over the numbers of an image, levels scaled to [0, 1]. perplexity: how many of the codes are
    used, in effect. used: how many occur at all. codes_per_image: the size of the map. bits_per_code: of the prior,
    None where there is none."""

    squared_error: float
    perplexity: float
    used: int
    codes_per_image: int
    bits_per_code: float | None


@torch.no_grad()
def code_figures(
    model: VQVAE | VQVAEWithPrior,
    images: Tensor,
    conditions: Tensor | None = None,
    *,
    batch_size: int = 50,
    update: Callable[[int], object] = lambda done: None,
) -> CodeFigures:
    """Over `images`, integers (N, C, H, W), every image counting the same.

    conditions: one per image, for a conditional prior. The model has to be in eval mode. `update` is called with the
    number of images done.
    """
    autoencoder = model.autoencoder if isinstance(model, VQVAEWithPrior) else model
    counts = torch.zeros(autoencoder.quantizer.codes, dtype=torch.int64)
    error, bits = 0.0, 0.0
    for first in range(0, len(images), batch_size):
        part = images[first : first + batch_size]
        codes = autoencoder.encode(network_input(autoencoder, part))
        counts += torch.bincount(codes.flatten(), minlength=len(counts))
        error += float((autoencoder.decode(codes) - part.long()).square().double().mean()) * len(part)
        if isinstance(model, VQVAEWithPrior):
            condition = None if conditions is None else conditions[first : first + batch_size]
            bits += float(mean_loss(model, part, condition)) * len(part)
        update(first + len(part))
    return CodeFigures(
        squared_error=error / len(images) / (autoencoder.levels - 1) ** 2,
        perplexity=perplexity(counts),
        used=int((counts > 0).sum()),
        codes_per_image=math.prod(autoencoder.code_shape),
        bits_per_code=bits / len(images) if isinstance(model, VQVAEWithPrior) else None,
    )
