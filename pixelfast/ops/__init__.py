"""Fused training operations: ordinary functions on tensors, each beside a plain torch reference."""

from __future__ import annotations

from .concat_elu import concat_elu_conv, concat_elu_conv_reference
from .gated import gated, gated_conv, gated_conv_reference, gated_reference
from .masked_conv import masked_conv, masked_conv_reference

__all__ = [
    "concat_elu_conv",
    "concat_elu_conv_reference",
    "gated",
    "gated_conv",
    "gated_conv_reference",
    "gated_reference",
    "masked_conv",
    "masked_conv_reference",
]
