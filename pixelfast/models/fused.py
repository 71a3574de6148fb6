"""When the models run the fused training operations of `pixelfast.ops` instead of plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_allowed = True


def fused(module: nn.Module) -> bool:
    """In training mode while gradients are wanted. Everything else, sampling and evaluation, sees plain torch."""
    return _allowed and module.training and torch.is_grad_enabled()


@contextmanager
def plain_torch() -> Iterator[None]:
    """Training in plain torch, for comparison."""
    global _allowed
    before, _allowed = _allowed, False
    try:
        yield
    finally:
        _allowed = before
