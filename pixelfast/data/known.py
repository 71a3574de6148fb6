"""Data sets that are recognised by what is in them: their names, and what is known of their licences."""

from __future__ import annotations

import hashlib

from torch import Tensor

MNIST = "MNIST"
MNIST_LICENCE = "MNIST (LeCun, Cortes and Burges): Creative Commons Attribution-Share Alike 3.0"
# SHA-256 of the labels as bytes. Their order is the data set's own; Fashion-MNIST and the others have another one.
_MNIST_LABELS = {
    "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13": 60_000,
    "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5": 10_000,
}

CIFAR10 = "CIFAR-10"
CIFAR10_LICENCE = "CIFAR-10 (Krizhevsky, 2009): its authors name no licence and ask to be cited"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

IMAGENET_LICENCE = "ImageNet: for non-commercial research and education, under the terms of image-net.org"


def is_mnist(labels: Tensor) -> bool:
    """Whether these int64 labels (N,), all below 256, are those of MNIST's train or test split."""
    if len(labels) not in _MNIST_LABELS.values():
        return False
    return hashlib.sha256(labels.byte().numpy().tobytes()).hexdigest() in _MNIST_LABELS
