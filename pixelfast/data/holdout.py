"""A test split for data that have none: images set aside."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pixelfast.data.image_data import ImageData, Images
from pixelfast.data.stacked import as_rows


class Chosen:
    """Some images of a set, read when they are asked for. index: int64 (N,), their numbers in the set."""

    def __init__(self, images: Images, index: Tensor) -> None:
        self._images = images
        self._index = index

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._index), *self._images.shape[1:])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Tensor | slice, /) -> Tensor:
        return self._images[self._index[torch.from_numpy(as_rows(index, len(self)))]]


def set_aside(data: ImageData, every: int) -> tuple[ImageData, ImageData]:
    """What to train on, and what to test on: every `every`-th image, counted from 1. Labels stay with their images.

    Raises ShapeError where one of them would be empty.
    """
    numbers = torch.arange(len(data))
    aside = numbers % every == every - 1
    return _part(data, numbers[~aside]), _part(data, numbers[aside])


def _part(data: ImageData, index: Tensor) -> ImageData:
    labels = None if data.labels is None else data.labels[index]
    return replace(data, images=Chosen(data.images, index), labels=labels)
