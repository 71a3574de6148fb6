"""Completing images with models of codes: what is given decides some codes, and the priors draw the others.

A code is taken from the encoder where all pixels of its cell are given. The encoder looks a little further than the
cell, so what is missing is filled with an image drawn before: first one that knows nothing of what is given, then the
completion itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F

from .errors import PixelfastError
from .likelihoods.base import check_images
from .requests import broadcast_known
from .stage import Drawn

TURNS = 3
"""So often the codes of what is given are found anew. Of 100 MNIST digits whose upper half is given to the shipped
VQ-VAE, 20 % of the codes of that half change in the second turn, 12 % in the third and 9 % in the fourth."""

Given = Mapping[str, Mapping[str, torch.Tensor]]
"""By stage: the arguments `known` and `mask` of its sampler."""


class GivenCodes:
    """A copy of a model's encoder, which gives the same codes for an image whatever it is encoded together with.

    One image at a time on one thread in float64, as decoders run. alone: a context in which torch has one thread.

    Raises PixelfastError for a model that has no encoder.
    """

    def __init__(self, model: Any, alone: Callable[[], AbstractContextManager[None]]) -> None:
        autoencoder: Any = getattr(model, "autoencoder", None)
        if not hasattr(autoencoder, "encode"):
            raise PixelfastError(f"{type(model).__name__} cannot encode a part of an image: leave known, mask out")
        self._encoder: Any = copy.deepcopy(autoencoder).cpu().double().eval()
        self._levels = model.levels
        self._names = [stage.name for stage in model.stages]
        self._alone = alone

    def __call__(self, images: torch.Tensor, mask: torch.Tensor) -> Given:
        """The codes of images, integers (n, C, H, W), and where `mask`, bool of the same shape, decides them."""
        signed = images.cpu().double() / ((self._levels - 1) / 2) - 1
        with self._alone(), torch.no_grad():
            encoded = [self._by_stage(self._encoder.encode(one)) for one in signed.split(1)]
        given = {}
        for name in self._names:
            codes = torch.cat([one[name] for one in encoded])
            cell = (mask.shape[2] // codes.shape[2], mask.shape[3] // codes.shape[3])
            missing = F.max_pool2d((~mask).any(dim=1, keepdim=True).float(), cell)
            given[name] = {"known": codes, "mask": missing == 0}
        return given

    def _by_stage(self, codes: Any) -> Mapping[str, torch.Tensor]:
        return codes if isinstance(codes, Mapping) else {self._names[0]: codes}


def complete_codes(
    shape: tuple[int, int, int],
    levels: int,
    n: int,
    known: torch.Tensor | None,
    mask: torch.Tensor | None,
    encode: GivenCodes,
    draw: Callable[[Given], Drawn],
    decode: Callable[[Drawn], torch.Tensor],
) -> torch.Tensor:
    """n images, (n, C, H, W) as `decode` gives them, that hold what is given.

    draw: what every stage draws given some of its codes. decode: the images of that.

    Raises ShapeError where known and mask do not fit the images.
    """
    pixels, where = broadcast_known(shape, n, known, mask)
    check_images(pixels, levels)
    images = decode(draw({}))
    pixels, where = pixels.to(images.dtype), where.to(images.device)
    for _ in range(TURNS if n else 0):
        images = decode(draw(encode(torch.where(where, pixels, images), where)))
    return torch.where(where, pixels, images)
