"""What an autoencoder with codes is worth: how well it reconstructs, how it uses its codes, what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixelfast.models.registry import is_autoencoder
from pixelfast.models.vector_quantizer import perplexity
from pixelfast.training.evaluate import network_input


@dataclass(frozen=True)
class MapFigures:
    """Of one map of codes. perplexity: how many of the codes are used, in effect. used: how many occur at all.
    codes_per_image: the size of the map. bits_per_code: of its prior, None where there is none."""

    perplexity: float
    used: int
    codes_per_image: int
    bits_per_code: float | None


@dataclass(frozen=True)
class CodeFigures:
    """squared_error: mean over the numbers of an image, levels scaled to [0, 1]. maps: by the maps' names."""

    squared_error: float
    maps: dict[str, MapFigures]


def code_maps(autoencoder: Any, x: Tensor) -> dict[str, Tensor]:
    """The maps of codes int64 (N, 1, h, w) of network inputs x, by their names."""
    codes = autoencoder.encode(x)
    return {"codes": codes} if isinstance(codes, Tensor) else codes


@torch.no_grad()
def code_figures(
    model: Any,
    images: Tensor,
    conditions: Tensor | None = None,
    *,
    batch_size: int = 50,
    update: Callable[[int], object] = lambda done: None,
) -> CodeFigures:
    """Over `images`, integers (N, C, H, W), every image counting the same.

    model: an autoencoder, or one with priors. conditions: one per image, for a conditional prior. The model has to be
    in eval mode. `update` is called with the number of images done.
    """
    autoencoder = model if is_autoencoder(model) else model.autoencoder
    quantizers = autoencoder.quantizers
    counts = {name: torch.zeros(one.codes, dtype=torch.int64) for name, one in quantizers.items()}
    bits = dict.fromkeys(quantizers, 0.0)
    places = dict.fromkeys(quantizers, 0)
    error = 0.0
    for first in range(0, len(images), batch_size):
        part = images[first : first + batch_size]
        maps = code_maps(autoencoder, network_input(autoencoder, part))
        for name, one in maps.items():
            counts[name] += torch.bincount(one.flatten(), minlength=len(counts[name]))
            places[name] = one[0].numel()
        error += float((autoencoder.decode(*maps.values()) - part.long()).square().double().mean()) * len(part)
        if model is not autoencoder:
            condition = None if conditions is None else conditions[first : first + batch_size]
            for name, mean in model.bits_per_code(maps, condition).items():
                bits[name] += float(mean) * len(part)
        update(first + len(part))
    return CodeFigures(
        error / len(images) / (autoencoder.levels - 1) ** 2,
        {
            name: MapFigures(
                perplexity(seen),
                int((seen > 0).sum()),
                places[name],
                None if model is autoencoder else bits[name] / len(images),
            )
            for name, seen in counts.items()
        },
    )
