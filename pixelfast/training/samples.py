"""Samples of a network in training, drawn by the engine, as a picture."""

from __future__ import annotations

import io
from typing import Any

import torch

from pixelfast.grid import grid
from pixelfast.sampler import compile as compile_sampler

SEED = 0
"""The same for every picture of a run, so that they show the same images getting better."""


def sample_grid(model: Any, count: int) -> bytes:
    """A PNG grid of `count` images; a conditional model's show its classes in turn.

    Raises PixelfastError when the model cannot be compiled or its images cannot be shown.
    """
    condition = None
    if model.condition_example is not None:
        condition = torch.arange(count) % model.config["classes"]
    images = compile_sampler(model).sample(count, seed=SEED, condition=condition)
    content = io.BytesIO()
    grid(images.cpu().numpy(), model.likelihood.levels).save(content, format="PNG")
    return content.getvalue()
