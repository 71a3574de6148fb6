"""Convolutions and gates on the CPU: `csrc/ops_conv.h`, which keeps nothing of the activations.

The C++ holds a whole image's features in a thread's memory. It was measured faster than torch's own convolution, with
less time for the activation, while they fit into the last-level cache; larger images take torch's convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixelfast import _C

from . import masked_conv_torch
from .concat_elu_dropout import dropout_threshold
from .masked_conv_layout import empty_result

LARGEST_SCRATCH = 32 << 20
"""Bytes that a thread may work in; where more are needed torch's convolution is used."""


def memory(tensor: Tensor | None) -> tuple[int, tuple[int, ...]] | None:
    """Address and strides, as `_C` takes them."""
    return None if tensor is None else (tensor.data_ptr(), tensor.stride())


def _sizes(x: Tensor, weight: Tensor, kind: str, padding: list[int], dilation: list[int]) -> dict[str, Any]:
    images, channels, height, width = x.shape
    left, _, top, _ = padding
    return {
        "dtype": str(x.dtype).removeprefix("torch."),
        "activation": kind,
        "sizes": (images, channels, weight.shape[0], height, width),
        "kernel": (weight.shape[2], weight.shape[3], top, left, dilation[0], dilation[1]),
    }


def _task(x: Tensor, weight: Tensor, condition: Tensor | None, seed: Tensor | None, dropout: float) -> dict[str, Any]:
    noise = None if seed is None else (dropout_threshold(dropout), 1 / (1 - dropout), int(seed) % 2**64)
    return {
        "dropout": noise,
        "x": memory(x),
        "condition": None if condition is None else memory(condition.expand_as(x)),
        "weight": weight.data_ptr(),
        "threads": torch.get_num_threads(),
    }


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
    sizes = _sizes(x, weight, kind, padding, dilation)
    if _C.conv_scratch_bytes(**sizes) > LARGEST_SCRATCH:
        return masked_conv_torch.conv(x, weight, bias, condition, added, seed, kind, padding, dilation, dropout)
    weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    out = empty_result(x, weight.shape[0])
    _C.conv(
        **sizes,
        **_task(x, weight, condition, seed, dropout),
        bias=None if bias is None else bias.data_ptr(),
        added=memory(added),
        out=memory(out),
    )
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
    sizes = _sizes(x, weight, kind, padding, dilation)
    if _C.conv_scratch_bytes(**sizes) > LARGEST_SCRATCH:
        return masked_conv_torch.conv_backward(
            upstream, x, weight, condition, seed, kind, padding, dilation, dropout, needs
        )
    weight = weight.contiguous()
    x_gradient = torch.empty_like(x) if needs[0] else x.new_empty(0)
    weight_gradient = torch.empty_like(weight) if needs[1] else x.new_empty(0)
    bias_gradient = x.new_empty(weight.shape[0]) if needs[2] else x.new_empty(0)
    _C.conv_gradient(
        **sizes,
        **_task(x, weight, condition, seed, dropout),
        out_gradient=memory(upstream),
        x_gradient=memory(x_gradient) if needs[0] else None,
        weight_gradient=weight_gradient.data_ptr() if needs[1] else None,
        bias_gradient=bias_gradient.data_ptr() if needs[2] else None,
    )
    return x_gradient, weight_gradient, bias_gradient


def gate(x: Tensor, condition: Tensor | None, residual: Tensor | None, kind: str) -> Tensor:
    """See `gated`."""
    out = empty_result(x, x.shape[1] // 2)
    _C.gate(
        **_gate(x, condition, kind),
        residual=memory(residual),
        out=memory(out),
    )
    return out


def gate_backward(upstream: Tensor, x: Tensor, condition: Tensor | None, kind: str) -> Tensor:
    """See `gated`."""
    x_gradient = torch.empty_like(x)
    _C.gate_gradient(**_gate(x, condition, kind), out_gradient=memory(upstream), x_gradient=memory(x_gradient))
    return x_gradient


def _gate(x: Tensor, condition: Tensor | None, kind: str) -> dict[str, Any]:
    return {
        "dtype": str(x.dtype).removeprefix("torch."),
        "activation": kind,
        "sizes": (x.shape[0], x.shape[1] // 2, x.shape[2], x.shape[3]),
        "x": memory(x),
        "condition": None if condition is None else memory(condition.expand_as(x)),
        "threads": torch.get_num_threads(),
    }
