"""The images of a run: opened, checked against the model, and cut into the batches it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pixelfast.data import load_mnist
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.training.batches import BatchOrder
from pixelfast.training.noise import Use, derived_seed
from pixelfast.training.recipe import Recipe


@dataclass(frozen=True)
class Images:
    """images: integers (N, C, H, W), indexed by int64 tensors. conditions: int64 labels (N,), or None."""

    images: Tensor
    conditions: Tensor | None

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> Images:
        """The first `count` of them."""
        return Images(self.images[:count], None if self.conditions is None else self.conditions[:count])

    def share(self, rank: int, world: int) -> Images:
        """One process's part when `world` of them divide the images."""
        return Images(self.images[rank::world], None if self.conditions is None else self.conditions[rank::world])


def open_images(path: Path, split: Literal["train", "test"], model: Any) -> Images:
    """One split of the data set at `path`, for a model. Raises ShapeError when the model is not made for it."""
    found = load_mnist(path, split)
    shape = tuple(found.images.shape[1:])
    if shape != tuple(model.shape):
        raise ShapeError(
            f"{path} holds images of shape {shape} and the model is made for {tuple(model.shape)}; "
            f"choose another recipe, or set config.shape={list(shape)}"
        )
    if model.condition_example is None:
        return Images(found.images, None)
    classes = model.config.get("classes")
    if classes is None or int(found.labels.max()) >= classes:
        raise PixelfastError(
            f"{path} has labels up to {int(found.labels.max())}; a conditional model needs config.classes above it"
        )
    return Images(found.images, found.labels)


class Batches:
    """What each step trains on, a function of the recipe's seed and the step alone."""

    def __init__(self, images: Images, recipe: Recipe) -> None:
        self._images = images
        self._order = BatchOrder(len(images), recipe.batch_size, recipe.seed)
        self._recipe = recipe

    def part(self, step: int, first: int, last: int) -> tuple[Tensor, Tensor | None]:
        """Images first to last (exclusive) of a step's batch, augmented: integers, and their conditions."""
        chosen = self._order.batch(step)[first:last]
        images = self._images.images[chosen]
        if self._recipe.flip:
            # Drawn for the whole batch, so that it does not matter how the batch is cut.
            generator = torch.Generator().manual_seed(derived_seed(self._recipe.seed, Use.AUGMENTATION, step))
            flipped = torch.rand(self._recipe.batch_size, generator=generator)[first:last] < 0.5
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        return images, None if self._images.conditions is None else self._images.conditions[chosen]
