"""Data sets read from the files people already have; nothing is downloaded."""

from pixelfast.data.mnist import Split, load_mnist, read_idx

__all__ = ["Split", "load_mnist", "read_idx"]
