"""Attention of every position of a map to those before it in raster order."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def heads_of(x: Tensor, heads: int) -> Tensor:
    """(N, heads * D, H, W) -> (N, heads, H * W, D): channels are heads, then what belongs to each."""
    return x.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3)


def causal_attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int = 1, *, epsilon: float = 0.0, dropout: float = 0.0
) -> Tensor:
    """Mixes values of earlier positions, its own excepted; the first position, which has none, gets zeros.

    Vaswani et al. 2017, equation 1, under a strictly causal mask. query and key: (N, heads * D, H, W), value: (N,
    heads * V, H, W) -> (N, heads * V, H, W). epsilon: added to the sum that the weights are divided by. dropout: of
    the weights, in training.
    """
    n, _, height, width = query.shape
    queries, keys, values = (heads_of(x, heads) for x in (query, key, value))
    positions = height * width
    hidden = torch.ones(positions, positions, dtype=torch.bool, device=query.device).triu()
    scores = (queries @ keys.transpose(2, 3)) / math.sqrt(queries.shape[-1])
    scores = scores.masked_fill(hidden, -1e4)
    powers = torch.exp(scores - scores.amax(dim=-1, keepdim=True)).masked_fill(hidden, 0.0)
    # The first row has no power at all: without epsilon it would be 0 / 0.
    total = powers.sum(dim=-1, keepdim=True) + (epsilon or torch.finfo(powers.dtype).tiny)
    weights = powers / total
    if dropout:
        weights = F.dropout(weights, dropout)
    mixed = weights @ values
    return mixed.transpose(2, 3).reshape(n, -1, height, width)


def positions_of(x: Tensor) -> Tensor:
    """(1, 2, H, W): row and column of every position, from -1/2 up to 1/2, as networks with attention read them."""
    rows, columns = ((torch.arange(size, device=x.device, dtype=x.dtype) - size / 2) / size for size in x.shape[2:])
    height, width = x.shape[2:]
    maps = (rows[:, None].expand(height, width), columns[None].expand(height, width))
    return torch.stack(maps)[None]
