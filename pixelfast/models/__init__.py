"""Thin model classes. They know nothing of the engine, which takes any causal module."""

from pixelfast.models.conditional_pixel_snail import ConditionalPixelSNAIL
from pixelfast.models.gated_pixelcnn import GatedPixelCNN
from pixelfast.models.hierarchical_pixel_vae import HierarchicalPixelVAE
from pixelfast.models.pixel_cnn import PixelCNN
from pixelfast.models.pixel_rnn import PixelRNN
from pixelfast.models.pixel_snail import PixelSNAIL
from pixelfast.models.pixel_vae import PixelVAE
from pixelfast.models.pixelcnn_plus_plus import PixelCNNPlusPlus
from pixelfast.models.vae import VAE
from pixelfast.models.vector_quantizer import VectorQuantizer
from pixelfast.models.vq_vae import VQVAE
from pixelfast.models.vq_vae_2 import VQVAE2
from pixelfast.models.vq_vae_2_prior import VQVAE2WithPriors
from pixelfast.models.vq_vae_prior import VQVAEWithPrior

__all__ = [
    "VAE",
    "VQVAE",
    "VQVAE2",
    "ConditionalPixelSNAIL",
    "GatedPixelCNN",
    "HierarchicalPixelVAE",
    "PixelCNN",
    "PixelCNNPlusPlus",
    "PixelRNN",
    "PixelSNAIL",
    "PixelVAE",
    "VQVAE2WithPriors",
    "VQVAEWithPrior",
    "VectorQuantizer",
]
