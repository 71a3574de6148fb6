"""What training minimises, and its mean over images: bits per dimension for models of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pixelfast import bars
from pixelfast.inputs import input_code
from pixelfast.models.registry import levels_of

BITS = "bits/dim"


def network_input(model: Any, images: Tensor) -> Tensor:
    """Integer levels (N, C, H, W) as `model.input` says the network takes them, in the model's dtype."""
    code = input_code(model.input, levels_of(model), images.shape[1])
    return code.encode(images.double(), next(model.parameters()).dtype)


def mean_loss(model: Any, images: Tensor, condition: Tensor | None = None) -> Tensor:
    """The mean over images, a scalar that carries gradients, in `loss_unit(model)`. `images`: integers.

    Models of pixels: -log2 p per dimension. Other models say what they minimise by their own `loss`.
    """
    inputs = network_input(model, images)
    if hasattr(model, "loss"):
        return model.loss(inputs, condition)
    params = model(inputs) if condition is None else model(inputs, condition)
    if params.dtype in (torch.bfloat16, torch.float16):
        params = params.float()
    nats = model.likelihood.loss(params, images.long())
    return nats / (images[0].numel() * math.log(2))


def loss_unit(model: Any) -> str:
    """The unit of `mean_loss`, in words."""
    return getattr(model, "loss_unit", BITS)


class Objective(nn.Module):
    """What training minimises, as one module: (integers (N, C, H, W), condition or None) -> `mean_loss`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        return mean_loss(self.model, images, condition)


@torch.no_grad()
def total_loss(
    model: nn.Module,
    take: Callable[[Tensor], tuple[Tensor, Tensor | None]],
    chosen: Tensor,
    *,
    batch_size: int = 50,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> float:
    """The loss of every image, summed, in eval mode.

    take: gives the images, integers (B, C, H, W), and conditions of int64 indices (B,). chosen: the indices (N,).
    `progress` shows a bar. NaN when `stop` turns true on the way.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    parts = chosen.split(batch_size) if len(chosen) else ()
    for part in bars.bar(parts, progress=progress, desc=loss_unit(model), unit="batch", leave=False):
        if stop():
            total = math.nan
            break
        images, condition = take(part)
        condition = None if condition is None else condition.to(device)
        total += float(mean_loss(model, images.to(device), condition)) * len(part)
    model.train(training)
    return total


def bits_per_dim(
    model: nn.Module,
    images: Tensor,
    conditions: Tensor | None = None,
    *,
    batch_size: int = 50,
    progress: bool = False,
) -> float:
    """Bits per dimension over `images`, integers (N, C, H, W), every image counting the same.

    conditions: one per image, for a conditional model. The model is put in eval mode for the call. `progress`
    shows a bar.
    """

    def take(index: Tensor) -> tuple[Tensor, Tensor | None]:
        return images[index], None if conditions is None else conditions[index]

    chosen = torch.arange(len(images))
    return total_loss(model, take, chosen, batch_size=batch_size, progress=progress) / len(images)
