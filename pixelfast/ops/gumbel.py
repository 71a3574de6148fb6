"""Turning uniforms into choices and logistic noise.

Uniforms are float64, strictly between 0 and 1, and of the form (k + 0.5) * 2**-32, so that u and 1 - u are
both exact: log u and log(1 - u) are then accurate at both ends without a complement being carried along.
"""

from __future__ import annotations

import math

import torch


def gumbel(uniforms: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise -log(-log u), same shape and dtype as `uniforms`."""
    return -torch.log(-torch.log(uniforms))


def logistic(uniforms: torch.Tensor) -> torch.Tensor:
    """Standard logistic noise log u - log(1 - u), same shape and dtype as `uniforms`."""
    return torch.log(uniforms) - torch.log1p(-uniforms)


def choose(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float) -> torch.Tensor:
    """One index per row with probability softmax(logits / temperature), by the Gumbel-max trick.

    The arg max is taken of logits + temperature * gumbel: the same choice as that of logits / temperature +
    gumbel, but it does not overflow, and temperature 0 needs no case of its own. A logit of minus infinity
    is never chosen; ties go to the lowest index.

    Args:
        logits: (N, K), float64.
        uniforms: (N, K), float64.
        temperature: at least 0.

    Returns:
        int64 (N,); -1 where nothing can be chosen: a logit is NaN, or all are minus infinity.
    """
    best, index = torch.max(logits + temperature * gumbel(uniforms), dim=1)
    return torch.where(best > -math.inf, index, -1)
