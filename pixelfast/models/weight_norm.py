"""Weight normalisation: a weight as a direction and a magnitude per slice of one axis."""

from __future__ import annotations

import torch
from torch import Tensor

# Salimans and Kingma's published code bounds the squared norm from below by this.
SMALLEST_SQUARE = 1e-12


def weight_norm(direction: Tensor, magnitude: Tensor, axis: int = 0) -> Tensor:
    """magnitude * direction / ||direction||, the norm taken over every axis but `axis`.

    direction: any shape; magnitude: (direction.shape[axis],). Salimans and Kingma 2016, equation 2.
    """
    others = [dim for dim in range(direction.dim()) if dim != axis]
    shape = [1] * direction.dim()
    shape[axis] = -1
    square = direction.square().sum(others, keepdim=True)
    return direction * (magnitude.view(shape) * torch.rsqrt(square.clamp_min(SMALLEST_SQUARE)))
