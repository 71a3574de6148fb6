"""The standard configuration of every model class, by name, with random weights: speed does not ask for training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from pixelfast.errors import PixelfastError
from pixelfast.models import registry


@dataclass(frozen=True)
class Standard:
    """model: its name in the registry. config: what differs from the class's own defaults."""

    description: str
    model: str
    config: dict[str, Any] = field(default_factory=dict)


MODELS: dict[str, Standard] = {
    "conditional-pixelsnail": Standard(
        "PixelSNAIL over codes, 32x32 of 512, 4 attentions of 8 heads, 256 features, 5x5 convolutions",
        "conditional_pixel_snail",
    ),
    "gated-pixelcnn": Standard("Gated PixelCNN, 28x28, 7 layers of 64 features", "gated_pixelcnn"),
    "hierarchical-pixelvae": Standard("hierarchical PixelVAE, binary 28x28, two levels", "hierarchical_pixel_vae"),
    "pixelcnn": Standard("PixelCNN, 32x32 in colour, 15 blocks around 128 features", "pixel_cnn"),
    "pixelcnnpp": Standard(
        "PixelCNN++, 32x32 in colour, 5 blocks of 160 filters per resolution, 10 mixtures", "pixelcnn_plus_plus"
    ),
    "pixelrnn-diagonal": Standard(
        "PixelRNN, binary 28x28, 7 Diagonal BiLSTM layers of 16 features", "pixel_rnn", {"kind": "diagonal_bilstm"}
    ),
    "pixelrnn-row": Standard(
        "PixelRNN, binary 28x28, 7 Row LSTM layers of 16 features", "pixel_rnn", {"kind": "row_lstm"}
    ),
    "pixelsnail": Standard("PixelSNAIL, 32x32 in colour, 12 attentions, 256 filters, 10 mixtures", "pixel_snail"),
    "pixelvae": Standard("PixelVAE, binary 28x28", "pixel_vae"),
    "vae": Standard("convolutional VAE, binary 28x28", "vae"),
    "vqvae": Standard("VQ-VAE of 28x28 images with a Gated PixelCNN prior over 7x7 codes", "vq_vae_with_prior"),
    "vqvae2": Standard(
        "VQ-VAE-2 of 256x256 images with PixelSNAIL priors over 32x32 and 64x64 codes", "vq_vae_2_with_priors"
    ),
}


def create(name: str) -> nn.Module:
    """A new model in eval mode. Raises PixelfastError for an unknown name."""
    if name not in MODELS:
        raise PixelfastError(f"no standard configuration {name!r}; there are: {', '.join(MODELS)}")
    return registry.create(MODELS[name].model, **MODELS[name].config).eval()
