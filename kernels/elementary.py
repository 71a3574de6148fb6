"""Elementary functions inside kernels, in float32 or float64."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _reduced(x):
    """n and p with exp(x) = 2^n (1 + p), for float32 x from -100 to 100: nearer than the hardware's own exponential.

    The polynomial is that of `csrc/vec_math.h`.
    """
    # Adding and taking away 1.5 * 2^23 rounds to a whole number.
    n = (x * 1.44269504 + 12582912.0) - 12582912.0
    # ln 2 in two parts; the first has 9 digits, so its product with n is exact.
    r = x - n * 0.693359375
    r = r + n * 2.12194440e-4
    q = 1.394072082e-03 + r * 1.984588453e-04
    q = 8.333389647e-03 + r * q
    q = 4.166635871e-02 + r * q
    q = 1.666666567e-01 + r * q
    q = 0.5 + r * q
    return n, r + r * r * q


@triton.jit
def exp(x):
    """exp(x) within 2 units in the last place; 0 below 1e-38."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        n, p = _reduced(tl.where(x < -87.0, -87.0, x))
        return tl.where(x < -87.0, 0.0, tl.exp2(n) * (1.0 + p))


@triton.jit
def decay(x):
    """exp(-x) and 1 - exp(-x) for x >= 0, each within 2 units in the last place."""
    if x.dtype == tl.float64:
        power = tl.exp(-x)
        # What is rounded off exp(-x) comes back through its logarithm (Kahan).
        near = tl.where(power == 1.0, x, (power - 1.0) * x / tl.log(tl.where(power == 1.0, 0.5, power)))
        return power, tl.where(x < 0.5, near, 1.0 - power)
    else:
        n, p = _reduced(-tl.where(x > 87.0, 87.0, x))
        scale = tl.exp2(n)
        return scale + scale * p, (1.0 - scale) - scale * p


@triton.jit
def tanh(x):
    _, rest = decay(2.0 * tl.abs(x))
    value = rest / (2.0 - rest)
    return tl.where(x < 0, -value, value)
