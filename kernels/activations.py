"""Concatenated units and gates on a GPU, in float32."""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import decay, tanh


@triton.jit
def concat_elu(x):
    """elu(x), elu(-x)."""
    _, fall = decay(tl.abs(x))
    return tl.where(x > 0, x, -fall), tl.where(x > 0, -fall, -x)


@triton.jit
def concat_elu_slopes(x):
    """The derivatives of elu(x) and elu(-x) in x and in -x."""
    power, _ = decay(tl.abs(x))
    return tl.where(x > 0, 1.0, power), tl.where(x < 0, 1.0, power)


@triton.jit
def gate_factors(first, second, KIND: tl.constexpr):
    """tanh(first) or first, sigmoid(second) and 1 - sigmoid(second)."""
    power, _ = decay(tl.abs(second))
    large = 1.0 / (1.0 + power)
    small = power * large
    value = first
    if KIND == "tanh":
        value = tanh(first)
    return value, tl.where(second < 0, small, large), tl.where(second < 0, large, small)
