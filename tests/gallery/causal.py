"""The plain causal layers that modules of the gallery build on where their idiom is something else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def raster_mask(kind: str, rows: int, columns: int) -> Tensor:
    """(1, 1, rows, columns): 1 before the centre in raster order; at the centre too for kind "B"."""
    order = torch.arange(rows * columns).reshape(rows, columns)
    centre = (rows // 2) * columns + columns // 2
    return ((order < centre) | ((order == centre) & (kind == "B"))).float()[None, None]


class MaskedConv(nn.Conv2d):
    """A convolution whose weight is multiplied by a raster mask, (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, kind: str, inputs: int, outputs: int, size: int = 3, **options: int) -> None:
        padding = options.get("dilation", 1) * (size // 2)
        super().__init__(inputs, outputs, size, padding=padding, **options)
        self.register_buffer("mask", raster_mask(kind, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class CornerConv(nn.Conv2d):
    """A convolution padded above and to the left only: reads (y, x) and what is above and left of it."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int] = (2, 2), stride: int = 1) -> None:
        super().__init__(inputs, outputs, size, stride=stride)
        self.pad = (size[1] - 1, 0, size[0] - 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.pad))
