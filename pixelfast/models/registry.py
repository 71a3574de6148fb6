"""Model names, as checkpoints and the command line write them."""

from __future__ import annotations

from typing import Any

from torch import nn

from pixelfast.errors import PixelfastError
from pixelfast.models.conditional_pixel_snail import ConditionalPixelSNAIL
from pixelfast.models.gated_pixelcnn import GatedPixelCNN
from pixelfast.models.pixel_cnn import PixelCNN
from pixelfast.models.pixel_snail import PixelSNAIL
from pixelfast.models.pixelcnn_plus_plus import PixelCNNPlusPlus
from pixelfast.models.vq_vae import VQVAE
from pixelfast.models.vq_vae_prior import VQVAEWithPrior

MODELS: dict[str, type[nn.Module]] = {
    "gated_pixelcnn": GatedPixelCNN,
    "pixel_cnn": PixelCNN,
    "pixelcnn_plus_plus": PixelCNNPlusPlus,
    "pixel_snail": PixelSNAIL,
    "conditional_pixel_snail": ConditionalPixelSNAIL,
    "vq_vae": VQVAE,
    "vq_vae_with_prior": VQVAEWithPrior,
}


def create(name: str, **config: Any) -> nn.Module:
    """A new model by name. Raises PixelfastError for a name or an argument it does not know."""
    if name not in MODELS:
        raise PixelfastError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
    return MODELS[name](**config)


def name_of(model: nn.Module) -> str:
    """The name `create` knows this model's class by."""
    for name, kind in MODELS.items():
        if type(model) is kind:
            return name
    raise PixelfastError(f"{type(model).__name__} is not one of pixelfast's models: {', '.join(MODELS)}")


def levels_of(model: Any) -> int:
    """How many values a channel of the images of one of pixelfast's models takes."""
    return model.likelihood.levels if hasattr(model, "likelihood") else model.levels
