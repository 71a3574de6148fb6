"""Data sets read from the files people already have. Only `fetch` downloads, and only when it is called."""

from pixelfast.data.downloads import fetch
from pixelfast.data.idx import read_idx
from pixelfast.data.image_data import ImageData, Images
from pixelfast.data.mnist import Split, load_mnist
from pixelfast.data.opening import open_data
from pixelfast.data.transforms import HorizontalFlip, Quantise, StochasticBinarise, Threshold, Transform

__all__ = [
    "HorizontalFlip",
    "ImageData",
    "Images",
    "Quantise",
    "Split",
    "StochasticBinarise",
    "Threshold",
    "Transform",
    "fetch",
    "load_mnist",
    "open_data",
    "read_idx",
]
