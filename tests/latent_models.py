"""Small models with latents for tests, with no weight zero or one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pixelfast.models import VAE, HierarchicalPixelVAE, PixelVAE

SMALL: dict[str, Any] = {"hidden": 5, "latents": 3}
PIXELS: dict[str, Any] = {"features": 4, "pixel_hidden": 6}

CASES: dict[str, Callable[[], nn.Module]] = {
    "vae": lambda: VAE((1, 8, 12), **SMALL),
    "vae, mlp, colour": lambda: VAE((3, 5, 7), "mixture", 256, 2, network="mlp", blocks=2, **SMALL),
    "pixel vae": lambda: PixelVAE((1, 4, 8), layers=2, **SMALL, **PIXELS),
    "pixel vae, no layers": lambda: PixelVAE((1, 12, 8), layers=0, **SMALL, **PIXELS),
    "pixel vae, bias": lambda: PixelVAE((1, 7, 5), layers=2, form="bias", network="mlp", **SMALL, **PIXELS),
    "pixel vae, colour": lambda: PixelVAE((3, 4, 8), "mixture", 256, 2, **SMALL, **PIXELS),
    "two levels": lambda: HierarchicalPixelVAE((1, 6, 8), hidden=5, latents=(2, 3), halvings=(1,), **PIXELS),
    "three levels": lambda: HierarchicalPixelVAE(
        (3, 8, 8), "mixture", 64, 2, latents=(2, 3, 4), halvings=(1, 1), hidden=5, **PIXELS
    ),
}


def small(name: str) -> Any:
    """A model of `CASES` in evaluation mode, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return randomised(CASES[name]())


def randomised(model: nn.Module, scale: float = 0.2) -> Any:
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def some_images(model: Any, n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(model.levels, (n, *model.shape), generator=torch.Generator().manual_seed(seed))
