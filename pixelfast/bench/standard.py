"""The standard configuration of every model class, by name, with random weights: speed does not ask for training."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pixelfast.errors import PixelfastError
from pixelfast.models import GatedPixelCNN, PixelCNN, PixelCNNPlusPlus

MODELS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "gated-pixelcnn": ("Gated PixelCNN, 28x28, 7 layers of 64 features", GatedPixelCNN),
    "pixelcnn": ("PixelCNN, 32x32 in colour, 15 blocks around 128 features", PixelCNN),
    "pixelcnnpp": (
        "PixelCNN++, 32x32 in colour, 5 blocks of 160 filters per resolution, 10 mixtures",
        PixelCNNPlusPlus,
    ),
}
"""Name -> what it is, and how to make it."""


def create(name: str) -> nn.Module:
    """A new model in eval mode. Raises PixelfastError for an unknown name."""
    if name not in MODELS:
        raise PixelfastError(f"no standard configuration {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name][1]().eval()
