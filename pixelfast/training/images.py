"""The images of a run: opened, checked against the model, and given out as the network is to see them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pixelfast.data import (
    HorizontalFlip,
    ImageData,
    Quantise,
    StochasticBinarise,
    Threshold,
    Transform,
    open_data,
)
from pixelfast.data.holdout import set_aside
from pixelfast.data.splits import NoSplitsError, SplitName
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.models.registry import levels_of
from pixelfast.training.batches import BatchOrder
from pixelfast.training.noise import Use, derived_seeds
from pixelfast.training.recipe import Recipe

BINARISE: dict[str, Transform] = {"threshold": Threshold(), "stochastic": StochasticBinarise()}

SHOWN = 8
"""Images at either end of a data set that tell it from another."""


class ImageSet:
    """One split of a data set, for one model. conditional: whether images come with their labels."""

    def __init__(self, data: ImageData, transforms: Sequence[Transform], seed: int, *, conditional: bool) -> None:
        self._data = data
        self._transforms = transforms
        self._seed = seed
        self._conditional = conditional

    def __len__(self) -> int:
        return len(self._data)

    def fingerprint(self) -> str:
        """SHA-256 of the first and the last images and their labels, as the data has them: it tells data sets apart."""
        shown = torch.cat((torch.arange(min(SHOWN, len(self))), torch.arange(max(0, len(self) - SHOWN), len(self))))
        found = hashlib.sha256(self._data.images[shown].numpy().tobytes())
        if self._conditional and self._data.labels is not None:
            found.update(self._data.labels[shown].numpy().tobytes())
        return found.hexdigest()

    def augmented(self, index: Tensor, step: int, first: int) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, H, W) of int64 indices (B,) and their labels, as number `first` and on of a step's batch.

        Every image has noise of its own, so that it does not matter how a batch is cut.
        """
        parts = range(first, first + len(index))
        return self._taken(index, derived_seeds(self._seed, Use.AUGMENTATION, [step] * len(index), parts))

    def always_the_same(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `augmented`, with the noise of the image itself instead of its place in the run."""
        return self._taken(index, derived_seeds(self._seed, Use.TEST, index.tolist(), [0] * len(index)))

    def _taken(self, index: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        images = self._data.images[index]
        if self._transforms:
            generator = torch.Generator()
            done = []
            for image, seed in zip(images.split(1), seeds, strict=True):
                generator.manual_seed(seed)
                levels = self._data.levels
                for transform in self._transforms:
                    image, levels = transform(image, levels, generator), transform.levels_after(levels)
                done.append(image)
            images = torch.cat(done)
        return images, self._data.labels[index] if self._conditional and self._data.labels is not None else None


class Splits(NamedTuple):
    """What to train on and what to test on; set_aside: whether the latter was made of the train split."""

    train: ImageSet
    test: ImageSet
    set_aside: bool


def open_splits(path: Path, recipe: Recipe, model: Any) -> Splits:
    """Both splits of the data set at `path`, as the recipe prepares them.

    Where nothing in the data set says a split, every `recipe.holdout`-th image is for testing. Raises PixelfastError
    when it cannot be read, ShapeError when the model is not made for it.
    """
    train = open_data(path, "train")
    made = False
    try:
        test = open_data(path, "test")
    except NoSplitsError as error:
        if recipe.holdout == 0:
            raise NoSplitsError(f"{error}; or set holdout, to test on every so many-th image") from None
        if len(train) < recipe.holdout:
            raise PixelfastError(
                f"{path} has no test split, and {len(train)} images are too few for holdout={recipe.holdout}: set "
                "a smaller one"
            ) from None
        made = True
        train, test = set_aside(train, recipe.holdout)
    return Splits(prepared(path, train, "train", recipe, model), prepared(path, test, "test", recipe, model), made)


def prepared(path: Path, data: ImageData, split: SplitName, recipe: Recipe, model: Any) -> ImageSet:
    """One split of the data set at `path`, as the recipe prepares it. Only training images are flipped."""
    if data.shape != tuple(model.shape):
        raise ShapeError(
            f"{path} holds images of shape {data.shape} and the model is made for {tuple(model.shape)}; "
            f"choose another recipe, or set config.shape={list(data.shape)}"
        )
    transforms: list[Transform] = []
    if recipe.levels is not None:
        transforms.append(Quantise(recipe.levels))
    if recipe.binarise is not None:
        transforms.append(BINARISE[recipe.binarise])
    if recipe.flip and split == "train":
        transforms.append(HorizontalFlip())
    levels = data.levels
    for transform in transforms:
        levels = transform.levels_after(levels)
    if levels != levels_of(model):
        raise ShapeError(
            f"{path} gives images of {levels} levels and the model is made for {levels_of(model)}; "
            "set levels, binarise or config.levels"
        )
    conditional = model.condition_example is not None
    if conditional:
        classes = model.config.get("classes")
        if data.labels is None:
            raise PixelfastError(f"{path} has no labels, which the recipe's conditional model needs")
        if classes is None or int(data.labels.max()) >= classes:
            raise PixelfastError(
                f"{path} has labels up to {int(data.labels.max())}; a conditional model needs config.classes above it"
            )
    return ImageSet(data, transforms, recipe.seed, conditional=conditional)


class Batches:
    """What each step trains on, a function of the recipe's seed and the step alone."""

    def __init__(self, images: ImageSet, recipe: Recipe) -> None:
        self._images = images
        self._order = BatchOrder(len(images), recipe.batch_size, recipe.seed)

    def part(self, step: int, first: int, last: int) -> tuple[Tensor, Tensor | None]:
        """Images first to last (exclusive) of a step's batch: integers (B, C, H, W), and labels or None."""
        return self._images.augmented(self._order.batch(step)[first:last], step, first)
