"""Mixtures' parameters and images of any strides, (image, plane, row, column): a block of pixels at a time."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

LOG_SCALE_FLOOR = tl.constexpr(-7.0)
"""Log-scales below this are raised to it."""


def mixtures_of(params: Tensor, channels: int) -> int:
    """Components of a mixture's parameters, (N, P, H, W)."""
    return params.shape[1] // (10 if channels == 3 else 3)


@triton.jit
def place(pixel, height, width):
    """Image, row and column of a pixel, 64 bits wide: offsets may need them."""
    column = pixel % width
    row = pixel // width % height
    image = pixel // (width * height)
    return image.to(tl.int64), row.to(tl.int64), column.to(tl.int64)


@triton.jit
def read(base, plane, stride, mask, number: tl.constexpr):
    return tl.load(base + plane * tl.cast(stride, tl.int64), mask=mask, other=0.0).to(number)


@triton.jit
def write(base, plane, stride, mask, value):
    tl.store(base + plane * tl.cast(stride, tl.int64), value.to(base.dtype.element_ty), mask=mask)
