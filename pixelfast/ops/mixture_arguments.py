"""Checks that the mixture's operations share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pixelfast.errors import ShapeError

from .mixture_loss_reference import planes_per_component

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
MOST_LEVELS = 1 << 31
"""What images have is far fewer."""


def check_params(params: Tensor, images: Sequence[int], other: Tensor, name: str, levels: int) -> None:
    """Refuse, with a ShapeError, params that do not fit `images`, (N, C, H, W) of 1 or 3 channels.

    They must also lie beside `other`, which messages call `name`.
    """
    n, channels, height, width = images
    planes = planes_per_component(channels)
    fits = (
        params.dtype in _FLOATS
        and params.ndim == 4
        and (params.shape[0], *params.shape[2:]) == (n, height, width)
        and params.shape[1] >= planes
        and params.shape[1] % planes == 0
    )
    if not fits:
        raise ShapeError(
            f"params have dtype {params.dtype} and shape {tuple(params.shape)}; for {name} of shape "
            f"{tuple(other.shape)} they must be float32, float64, float16 or bfloat16 "
            f"({n}, {planes} * mixtures, {height}, {width})"
        )
    if params.device != other.device:
        raise ShapeError(f"params are on {params.device} and {name} on {other.device}; they must be on one device")
    if not isinstance(levels, int) or not 2 <= levels <= MOST_LEVELS:
        raise ShapeError(f"levels is {levels!r}; it must be an integer from 2 to {MOST_LEVELS}")
    for tensor in (params, other):
        if tensor.layout != torch.strided:
            raise ShapeError(f"an argument has layout {tensor.layout}; only ordinary (strided) tensors are accepted")
