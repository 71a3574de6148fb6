"""Model names, as checkpoints and the command line write them."""

from __future__ import annotations

from typing import Any

from torch import nn

from pixelfast.errors import PixelfastError
from pixelfast.models.conditional_pixel_snail import ConditionalPixelSNAIL
from pixelfast.models.gated_pixelcnn import GatedPixelCNN
from pixelfast.models.hierarchical_pixel_vae import HierarchicalPixelVAE
from pixelfast.models.pixel_cnn import PixelCNN
from pixelfast.models.pixel_rnn import PixelRNN
from pixelfast.models.pixel_snail import PixelSNAIL
from pixelfast.models.pixel_vae import PixelVAE
from pixelfast.models.pixelcnn_plus_plus import PixelCNNPlusPlus
from pixelfast.models.vae import VAE
from pixelfast.models.vq_vae import VQVAE
from pixelfast.models.vq_vae_2 import VQVAE2
from pixelfast.models.vq_vae_2_prior import VQVAE2WithPriors
from pixelfast.models.vq_vae_prior import VQVAEWithPrior

MODELS: dict[str, type[nn.Module]] = {
    "gated_pixelcnn": GatedPixelCNN,
    "pixel_cnn": PixelCNN,
    "pixelcnn_plus_plus": PixelCNNPlusPlus,
    "pixel_rnn": PixelRNN,
    "pixel_snail": PixelSNAIL,
    "conditional_pixel_snail": ConditionalPixelSNAIL,
    "vae": VAE,
    "pixel_vae": PixelVAE,
    "hierarchical_pixel_vae": HierarchicalPixelVAE,
    "vq_vae": VQVAE,
    "vq_vae_with_prior": VQVAEWithPrior,
    "vq_vae_2": VQVAE2,
    "vq_vae_2_with_priors": VQVAE2WithPriors,
}

AUTOENCODER_OF: dict[type[nn.Module], type[nn.Module]] = {VQVAEWithPrior: VQVAE, VQVAE2WithPriors: VQVAE2}
"""Models of codes, and the class whose codes they are about: trained before, it is their `autoencoder`."""


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


def is_autoencoder(model: Any) -> bool:
    """Whether a model reconstructs images by way of codes, and samples none."""
    return type(model) in AUTOENCODER_OF.values()


def levels_of(model: Any) -> int:
    """How many values a channel of the images of one of pixelfast's models takes."""
    return model.likelihood.levels if hasattr(model, "likelihood") else model.levels
