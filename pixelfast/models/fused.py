"""When the models run the fused training operations of `pixelfast.ops` instead of plain torch."""

from __future__ import annotations

import torch
from torch import nn


def fused(module: nn.Module) -> bool:
    """In training mode while gradients are wanted. Everything else, sampling and evaluation, sees plain torch."""
    return module.training and torch.is_grad_enabled()
