"""What a model with latents is worth: its bound on the likelihood, and what each of its parts costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class BoundFigures:
    """Means over images, in nats. distortion: of an image given its latents. kl: of every level of latents, by its
    stage's name. plain: whether the latents were no draws, so that there is no bound."""

    distortion: float
    kl: Mapping[str, float]
    plain: bool

    @property
    def total(self) -> float:
        """The bound on -log p, the negative ELBO."""
        return self.distortion + sum(self.kl.values())


def has_bound(model: Any) -> bool:
    """Whether this is a model with latents, whose likelihood is known by a bound."""
    return hasattr(model, "bound")


@torch.no_grad()
def bound_figures(
    model: Any, images: Tensor, *, batch_size: int = 50, update: Callable[[int], object] = lambda done: None
) -> BoundFigures:
    """Over `images`, integers (N, C, H, W), every image counting the same, at one draw of each one's latents.

    The model has to be in eval mode. `update` is called with the number of images done.
    """
    distortion, kl = 0.0, {stage.name: 0.0 for stage in model.stages[:-1]}
    for first in range(0, len(images), batch_size):
        part = images[first : first + batch_size].long()
        bound = model.bound(part)
        distortion += float(bound.distortion.double().sum())
        for name, nats in bound.kl.items():
            kl[name] += float(nats.double().sum())
        update(first + len(part))
    count = len(images)
    plain = getattr(model, "kl_weight", 1.0) == 0
    return BoundFigures(distortion / count, {name: nats / count for name, nats in kl.items()}, plain)
