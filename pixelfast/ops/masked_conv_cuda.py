"""Convolutions and gates on a GPU: the Triton kernels of `pixelfast.kernels`, or plain torch in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelfast.kernels import concat_elu_dropout as dropout_kernels
from pixelfast.kernels import gated as gate_kernels
from pixelfast.kernels import masked_conv as conv_kernels

from . import masked_conv_activations, masked_conv_torch
from .concat_elu_dropout import dropout_threshold
from .masked_conv_layout import empty_result


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    condition: Tensor | None,
    added: Tensor | None,
    seed: Tensor | None,
    kind: str,
    padding: list[int],
    dilation: list[int],
    dropout: float,
) -> Tensor:
    """See `masked_conv_core`."""
    if x.dtype == torch.float64:
        return masked_conv_torch.conv(x, weight, bias, condition, added, seed, kind, padding, dilation, dropout)
    out = empty_result(x, weight.shape[0])
    bias = None if bias is None else bias.contiguous()
    noise = _kept(x, seed, dropout), 1 / (1 - dropout)
    conv_kernels.conv(x, weight, bias, condition, added, *noise, kind, padding, dilation[0], out)
    return out


def conv_backward(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    condition: Tensor | None,
    seed: Tensor | None,
    kind: str,
    padding: list[int],
    dilation: list[int],
    dropout: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """See `masked_conv_core`."""
    if x.dtype == torch.float64:
        return masked_conv_torch.conv_backward(
            upstream, x, weight, condition, seed, kind, padding, dilation, dropout, needs
        )
    given = condition, _kept(x, seed, dropout), 1 / (1 - dropout), kind, padding, dilation[0]
    # Three tensors: outputs of an operation must not share memory.
    x_gradient, weight_gradient, bias_gradient = (x.new_empty(0) for _ in range(3))
    if needs[0]:
        x_gradient = torch.empty_like(x)
        conv_kernels.conv_input_gradient(upstream, x, weight, *given, x_gradient)
    if needs[1]:
        weight_gradient = conv_kernels.conv_weight_gradient(upstream, x, weight.shape, *given)
    if needs[2]:
        bias_gradient = upstream.sum(dim=(0, 2, 3))
    return x_gradient, weight_gradient, bias_gradient


def gate(x: Tensor, condition: Tensor | None, residual: Tensor | None, kind: str) -> Tensor:
    """See `gated`."""
    out = empty_result(x, x.shape[1] // 2)
    if x.dtype == torch.float64:
        value = masked_conv_activations.gate(x, condition, kind)
        return out.copy_(value if residual is None else residual + value)
    gate_kernels.gate(x, condition, residual, kind, out)
    return out


def gate_backward(upstream: Tensor, x: Tensor, condition: Tensor | None, kind: str) -> Tensor:
    """See `gated`."""
    gradient = torch.empty_like(x)
    if x.dtype == torch.float64:
        return gradient.copy_(masked_conv_activations.gate_gradient(upstream, x, condition, kind))
    gate_kernels.gate_gradient(upstream, x, condition, kind, gradient)
    return gradient


def _kept(x: Tensor, seed: Tensor | None, dropout: float) -> Tensor | None:
    return None if seed is None else dropout_kernels.kept_features(x, seed, dropout_threshold(dropout))
