"""What may happen to a batch of images on its way to the network: small pure functions.

A transform is given images uint8 (B, C, H, W) with levels 0 .. levels - 1 and the generator of the training step, and
returns new ones. It keeps nothing between calls, so a step that is repeated with the same generator state sees the
same images, whichever steps came before it.

To draw the same noise on any number of processes, transform the whole batch of the step and then take a part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pixelfast.errors import PixelfastError


class Transform(Protocol):
    """What every transform here is."""

    def levels_after(self, levels: int) -> int:
        """How many levels the images have afterwards. Raises PixelfastError when theirs do not fit."""

    def __call__(self, images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
        """uint8 (B, C, H, W) -> uint8 (B, C, H, W). The generator is on the images' device."""


@dataclass(frozen=True)
class Threshold:
    """Two levels: 1 where the level is at least `at`, else 0. 128 cuts 256 levels in the middle."""

    at: int = 128

    def levels_after(self, levels: int) -> int:
        if not 0 < self.at < levels:
            raise PixelfastError(f"the threshold {self.at} is not one of the levels 1 to {levels - 1}")
        return 2

    def __call__(self, images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
        return (images >= self.at).to(torch.uint8)


@dataclass(frozen=True)
class StochasticBinarise:
    """Two levels: 1 with probability level / (levels - 1), drawn anew at every step (Salakhutdinov and Murray, 2008).

    Level 0 is never 1, the highest level always.
    """

    def levels_after(self, levels: int) -> int:
        return 2

    def __call__(self, images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
        # Integers 0 .. levels - 2 make the probabilities exact.
        draws = torch.randint(levels - 1, images.shape, generator=generator, device=images.device)
        return (draws < images).to(torch.uint8)


@dataclass(frozen=True)
class HorizontalFlip:
    """Each image mirrored left to right with probability 1/2."""

    def levels_after(self, levels: int) -> int:
        return levels

    def __call__(self, images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
        flip = torch.randint(2, (len(images), 1, 1, 1), generator=generator, device=images.device)
        return torch.where(flip == 1, images.flip(-1), images)


@dataclass(frozen=True)
class Quantise:
    """Fewer levels of equal width: level * to // levels, as the 5 and 3 bit versions of data sets are made."""

    to: int

    def levels_after(self, levels: int) -> int:
        if not 2 <= self.to <= levels:
            raise PixelfastError(f"{levels} levels cannot be quantised to {self.to}; give 2 to {levels}")
        return self.to

    def __call__(self, images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
        return (images.to(torch.int32) * self.to).div(levels, rounding_mode="floor").to(torch.uint8)
