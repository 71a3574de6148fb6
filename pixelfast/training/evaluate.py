"""Bits per dimension of a model on images."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pixelfast.inputs import input_code


def network_input(model: Any, images: Tensor) -> Tensor:
    """Integer levels (N, C, H, W) as `model.input` says the network takes them, in the model's dtype."""
    code = input_code(model.input, model.likelihood.levels, images.shape[1])
    return code.encode(images.double(), next(model.parameters()).dtype)


def mean_bits(model: Any, images: Tensor) -> Tensor:
    """Mean over images and dimensions of -log2 p, a scalar that carries gradients. `images`: integers."""
    nats = model.likelihood.loss(model(network_input(model, images)), images.long())
    return nats / (images[0].numel() * math.log(2))


@torch.no_grad()
def bits_per_dim(model: nn.Module, images: Tensor, *, batch_size: int = 50, progress: bool = False) -> float:
    """Bits per dimension over `images`, integers (N, C, H, W), every image counting the same.

    The model is put in eval mode for the call. `progress` shows a bar.
    """
    training = model.training
    model.eval()
    total = 0.0
    batches = images.split(batch_size)
    for batch in tqdm(batches, desc="bits/dim", unit="batch", disable=not progress, leave=False):
        total += float(mean_bits(model, batch)) * len(batch)
    model.train(training)
    return total / len(images)
