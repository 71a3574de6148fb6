"""exp(-x) and 1 - exp(-x) nearer than the hardware's own exponential, and what gates and units make of them.

All for float32. The polynomial is that of `csrc/vec_math.h`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def decay(x):
    """exp(-x) and 1 - exp(-x) for x >= 0, each within 2 units in the last place; 0 and 1 from 87 on."""
    x = tl.minimum(x, 87.0, propagate_nan=tl.PropagateNan.ALL)
    # exp(-x) = 2^n (1 + p). Adding and taking away 1.5 * 2^23 rounds to a whole number.
    n = (x * -1.44269504 + 12582912.0) - 12582912.0
    # ln 2 in two parts; the first has 9 digits, so its product with n is exact.
    r = (-x - n * 0.693359375) + n * 2.12194440e-4
    q = 1.394072082e-03 + r * 1.984588453e-04
    q = 8.333389647e-03 + r * q
    q = 4.166635871e-02 + r * q
    q = 1.666666567e-01 + r * q
    q = 0.5 + r * q
    p = r + r * r * q
    scale = tl.exp2(n)
    return scale + scale * p, (1.0 - scale) - scale * p


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
        _, rest = decay(2.0 * tl.abs(first))
        size = rest / (2.0 - rest)
        value = tl.where(first < 0, -size, size)
    return value, tl.where(second < 0, small, large), tl.where(second < 0, large, small)
