"""Fused training operations: ordinary functions on tensors, each beside a plain torch reference."""

from __future__ import annotations

from .mixture_loss import mixture_nll
from .mixture_loss_reference import mixture_nll_reference

__all__ = ["mixture_nll", "mixture_nll_reference"]
