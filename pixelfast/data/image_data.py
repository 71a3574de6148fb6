"""A data set as the trainer sees it: images by index, labels, and what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pixelfast.errors import ShapeError


class Images(Protocol):
    """Images read where they lie: a tensor, arrays mapped from files, or files decoded when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, index: Tensor | slice, /) -> Tensor:
        """uint8 (B, C, H, W) on the CPU for an int64 index (B,) or a slice; raises IndexError outside of 0..N-1."""


@dataclass(frozen=True)
class ImageData:
    """One split of a data set.

    name: for people: a known data set's name, else that of the file or folder.
    images: `images[index]` is uint8 (B, C, H, W), levels 0 .. levels - 1, for an int64 index tensor (B,).
    labels: int64 (N,), or None where the data set has none.
    classes: what the labels mean, by number; labels without names are named by their numbers. None without labels.
    levels: how many values a number of an image can have.
    licence: a note on the data's licence where it is known; figures and weights made of the data may need it.

    Raises ShapeError when the parts do not fit each other, or there are no images.
    """

    name: str
    images: Images
    labels: Tensor | None = None
    classes: tuple[str, ...] | None = None
    levels: int = 256
    licence: str | None = None

    def __post_init__(self) -> None:
        if len(self.images.shape) != 4 or 0 in self.images.shape:
            raise ShapeError(f"{self.name} holds images {tuple(self.images.shape)}; (N, C, H, W) without a 0 is read")
        if (self.labels is None) != (self.classes is None):
            raise ShapeError(f"{self.name} has labels without classes or classes without labels; give both or neither")
        if self.labels is not None and (
            self.labels.dtype != torch.int64 or tuple(self.labels.shape) != (len(self.images),)
        ):
            raise ShapeError(
                f"{self.name} has labels {self.labels.dtype} {tuple(self.labels.shape)} for {len(self.images)} images; "
                "one int64 label per image is needed"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width
