"""Down-sampled ImageNet (Chrabaszcz, Loshchilov and Hutter, 2017): .npz batches of flat images.

A batch has `data`, uint8 (N, 3 * S * S): red, green and blue planes of S rows each, and `labels`, integers
1..1000. The train split is ten files train_data_batch_1.npz to train_data_batch_10.npz, the test split val_data.npz.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelfast.data import known
from pixelfast.data.image_data import ImageData
from pixelfast.data.labels import as_labels
from pixelfast.data.named_arrays import NamedArrays
from pixelfast.data.splits import SplitName, choose, split_of
from pixelfast.data.stacked import StackedArrays
from pixelfast.errors import PixelfastError, ShapeError

CLASSES = 1000
TRAIN_BATCHES = 10
_NUMBERED = re.compile(r"train_data_batch_(\d+)")


def is_imagenet(arrays: NamedArrays) -> bool:
    """Whether the arrays are those of a batch: `data` with two dimensions, and `labels`."""
    return "labels" in arrays.headers and "data" in arrays.headers and len(arrays.headers["data"].shape) == 2


def open_imagenet(batches: Sequence[tuple[Path, NamedArrays]], split: SplitName, where: Path) -> ImageData:
    """The batches of a split one after the other.

    Raises PixelfastError when one of the train split's numbered batches is missing, or the split itself; ShapeError
    when batches are no such batches or do not fit each other.
    """
    chosen = choose(batches, split, where, lambda batch: split_of(batch[0].stem))
    numbers = {path: int(match[1]) for path, _ in chosen if (match := _NUMBERED.fullmatch(path.stem))}
    if where.is_dir() and numbers and sorted(numbers.values()) != list(range(1, TRAIN_BATCHES + 1)):
        raise PixelfastError(
            f"{where} holds the train batches {', '.join(map(str, sorted(numbers.values())))}; down-sampled ImageNet "
            f"has 1 to {TRAIN_BATCHES}; give one file to read it alone"
        )
    parts: list[np.ndarray] = []
    labels: list[Tensor] = []
    for path, arrays in sorted(chosen, key=lambda batch: (numbers.get(batch[0], 0), batch[0])):
        images = _images(arrays.array("data"), path)
        found = as_labels(arrays.array("labels"), len(images), path)
        if len(found) and not 1 <= int(found.min()) <= int(found.max()) <= CLASSES:
            raise ShapeError(
                f"{path} holds labels from {int(found.min())} to {int(found.max())}; "
                f"down-sampled ImageNet has 1 to {CLASSES}"
            )
        if parts and images.shape[1:] != parts[0].shape[1:]:
            raise ShapeError(
                f"{path} holds images {images.shape[1:]}, the batches before it {parts[0].shape[1:]}; give one size"
            )
        parts.append(images)
        labels.append(found - 1)
    return ImageData(
        where.name,
        StackedArrays(parts),
        torch.cat(labels),
        tuple(str(number) for number in range(1, CLASSES + 1)),
        licence=known.IMAGENET_LICENCE,
    )


def _images(data: np.ndarray, path: Path) -> np.ndarray:
    side = math.isqrt(data.shape[1] // 3)
    if data.dtype != np.uint8 or side == 0 or 3 * side * side != data.shape[1]:
        raise ShapeError(f"{path} holds {data.dtype} {data.shape} images; uint8 (N, 3 * S * S) is read")
    return data.reshape(len(data), 3, side, side)
