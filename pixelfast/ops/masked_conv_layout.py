"""Sizes and memory formats of what the operations return: the same for kernels and for torch's fake tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def memory_format(x: Tensor) -> torch.memory_format:
    """Channels-last for x in that format, else contiguous."""
    # A tensor of one channel or one pixel is both; torch's convolution then looks at the strides, too.
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def empty_result(x: Tensor, channels: int) -> Tensor:
    """Room for (N, channels, H, W) in the memory format of x (N, C, H, W)."""
    return torch.empty(
        (x.shape[0], channels, *x.shape[2:]), dtype=x.dtype, device=x.device, memory_format=memory_format(x)
    )
