"""Labels as every data set here gives them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pixelfast.errors import ShapeError

# More than any set of images has; a larger number is an identifier, not a class.
MAX_CLASSES = 65_536


def as_labels(values: np.ndarray, images: int, where: object) -> Tensor:
    """Integers (N,) or (N, 1) as int64 (N,). Raises ShapeError when they are not one class per image."""
    if values.dtype.kind not in "iu" or values.shape not in ((images,), (images, 1)):
        raise ShapeError(
            f"{where} holds {values.dtype} {values.shape} labels for {images} images; "
            "one label per image is needed, an integer"
        )
    if images and not 0 <= int(values.min()) <= int(values.max()) < MAX_CLASSES:
        raise ShapeError(
            f"{where} holds labels from {int(values.min())} to {int(values.max())}; "
            f"labels are class numbers from 0 to at most {MAX_CLASSES - 1}"
        )
    return torch.from_numpy(values.reshape(images).astype(np.int64))


def numbered_classes(*labels: Tensor) -> tuple[str, ...]:
    """The names of classes that have none: their numbers, up to the largest of all `labels`."""
    return tuple(str(number) for number in range(1 + max(int(each.max()) for each in labels if len(each))))
