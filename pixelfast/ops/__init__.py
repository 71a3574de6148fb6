"""Fused operations: ordinary functions on tensors, each beside a plain torch reference."""

from __future__ import annotations

from .concat_elu import concat_elu_conv, concat_elu_conv_reference
from .diagonal_lstm import diagonal_lstm, diagonal_lstm_reference
from .gated import gated, gated_conv, gated_conv_reference, gated_reference
from .gated_block import gated_block, gated_block_reference
from .masked_conv import masked_conv, masked_conv_reference
from .mixture_loss import mixture_nll
from .mixture_loss_reference import mixture_nll_reference
from .mixture_sample import mixture_sample
from .mixture_sample_reference import mixture_sample_reference
from .row_lstm import row_lstm, row_lstm_reference

__all__ = [
    "concat_elu_conv",
    "concat_elu_conv_reference",
    "diagonal_lstm",
    "diagonal_lstm_reference",
    "gated",
    "gated_block",
    "gated_block_reference",
    "gated_conv",
    "gated_conv_reference",
    "gated_reference",
    "masked_conv",
    "masked_conv_reference",
    "mixture_nll",
    "mixture_nll_reference",
    "mixture_sample",
    "mixture_sample_reference",
    "row_lstm",
    "row_lstm_reference",
]
