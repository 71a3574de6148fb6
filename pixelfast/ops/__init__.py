"""Fused operations: ordinary functions on tensors, each beside a plain torch reference."""

from __future__ import annotations

from .mixture_loss import mixture_nll
from .mixture_loss_reference import mixture_nll_reference
from .mixture_sample import mixture_sample
from .mixture_sample_reference import mixture_sample_reference

__all__ = ["mixture_nll", "mixture_nll_reference", "mixture_sample", "mixture_sample_reference"]
