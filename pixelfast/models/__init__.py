"""Thin model classes. They know nothing of the engine, which takes any causal module."""

from pixelfast.models.gated_pixelcnn import GatedPixelCNN
from pixelfast.models.pixelcnn_plus_plus import PixelCNNPlusPlus

__all__ = ["GatedPixelCNN", "PixelCNNPlusPlus"]
