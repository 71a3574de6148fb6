"""Thin model classes. They know nothing of the engine, which takes any causal module."""

from pixelfast.models.conditional_pixel_snail import ConditionalPixelSNAIL
from pixelfast.models.gated_pixelcnn import GatedPixelCNN
from pixelfast.models.pixel_cnn import PixelCNN
from pixelfast.models.pixel_snail import PixelSNAIL
from pixelfast.models.pixelcnn_plus_plus import PixelCNNPlusPlus
from pixelfast.models.vector_quantizer import VectorQuantizer
from pixelfast.models.vq_vae import VQVAE
from pixelfast.models.vq_vae_prior import VQVAEWithPrior

__all__ = [
    "VQVAE",
    "ConditionalPixelSNAIL",
    "GatedPixelCNN",
    "PixelCNN",
    "PixelCNNPlusPlus",
    "PixelSNAIL",
    "VQVAEWithPrior",
    "VectorQuantizer",
]
