"""Everything that decides the outcome of a training run, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pixelfast.errors import PixelfastError


@dataclass(frozen=True)
class Recipe:
    """One training run. Two runs of one recipe on the same data, machine and thread count give the same bits.

    model, config: the model's name and constructor arguments (`pixelfast.models.registry`).
    steps: optimiser steps; the learning rate falls to zero at the last one.
    batch_size: images per step.
    learning_rate: peak of the schedule, reached after `warmup_steps` by a linear rise and left along a
        half cosine (Loshchilov and Hutter, SGDR).
    betas, weight_decay: of AdamW (Loshchilov and Hutter); weight_decay 0 is Adam.
    clip_norm: limit of the gradient's norm, the loss being in bits per dimension.
    ema_decay: of the moving average of the weights, which is what is evaluated and saved.
    seed: of the initial weights, of the order of the images and of dropout.
    snapshot_every: steps between snapshots.
    validate_every, validation_images: steps between looks at the test set, and how many of its images.
    """

    name: str
    model: str
    steps: int
    config: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    snapshot_every: int = 500
    validate_every: int = 2000
    validation_images: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "snapshot_every", "validate_every", "validation_images"):
            if getattr(self, name) < 1:
                raise PixelfastError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.warmup_steps < 0:
            raise PixelfastError(f"warmup_steps must not be negative, not {self.warmup_steps}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise PixelfastError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise PixelfastError(f"ema_decay must be at least 0 and less than 1, not {self.ema_decay}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of optimiser step `step`, counted from 0."""
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / self.steps))


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="gated-pixelcnn-mnist",
            model="gated_pixelcnn",
            config={"shape": [1, 28, 28], "levels": 256, "hidden": 32, "dilations": [1, 2, 1, 4, 1, 2, 1]},
            steps=22_500,  # three epochs
            batch_size=8,
            learning_rate=4e-3,
            validate_every=2500,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """A recipe by name. Raises PixelfastError, naming those that exist."""
    if name not in RECIPES:
        raise PixelfastError(f"unknown recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]
