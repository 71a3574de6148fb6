"""Samples of a network in training, drawn by the engine, as a picture."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor

from pixelfast.grid import grid
from pixelfast.models.registry import is_autoencoder, levels_of
from pixelfast.sampler import compile as compile_sampler
from pixelfast.training.evaluate import network_input

SEED = 0
"""The same for every picture of a run, so that they show the same images getting better."""


def sample_grid(model: Any, count: int, images: Tensor) -> bytes:
    """A PNG grid of `count` samples; a conditional model's show its classes in turn.

    Of an autoencoder, which has no samples: each of `images`, integers (N, C, H, W), and its reconstruction.

    Raises PixelfastError when the model cannot be compiled or its images cannot be shown.
    """
    if is_autoencoder(model):
        images = images.to(next(model.parameters()).device)
        again = model.reconstruct(network_input(model, images))
        return _png(torch.stack((images.long(), again), dim=1).flatten(0, 1), model)
    condition = None
    if model.condition_example is not None:
        condition = torch.arange(count) % model.config["classes"]
    return _png(compile_sampler(model).sample(count, seed=SEED, condition=condition), model)


def _png(images: Tensor, model: Any) -> bytes:
    content = io.BytesIO()
    grid(images.cpu().numpy(), levels_of(model)).save(content, format="PNG")
    return content.getvalue()
