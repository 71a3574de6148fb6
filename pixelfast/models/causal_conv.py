"""Convolutions of the vertical and horizontal stacks, and the channel-group mask inside a pixel.

Only taps that may be non-zero are stored: a "k x k masked kernel" of the literature is kept as its
live rows and columns, so there is nothing to zero and nothing to mutate. The one mask left is inside the
newest pixel, between the groups of channels of a sequential model, and multiplies the weight functionally.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def channel_groups(width: int, groups: int) -> Tensor:
    """Group of each of `width` features, contiguous and as equal as can be: int64 (width,)."""
    return torch.arange(width) * groups // width


def mask_a(sources: Tensor, targets: Tensor) -> Tensor:
    """Earlier groups only, for what reads the image itself. Bool (targets, sources)."""
    return sources[None, :] < targets[:, None]


def mask_b(sources: Tensor, targets: Tensor) -> Tensor:
    """Earlier groups and its own, for what reads features. Bool (targets, sources)."""
    return sources[None, :] <= targets[:, None]


class VerticalConv(nn.Conv2d):
    """What lies above: rows y - k//2 .. y - 1, and row y when `include_row`, columns x - k//2 .. x + k//2.

    Row y is included in every layer but the first, whose input is the image itself: features of row y of
    this stack then depend on image rows before y only. (N, in, H, W) -> (N, out, H, W).
    """

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, *, dilation: int = 1, include_row: bool
    ) -> None:
        self.reach = dilation * (kernel_size // 2)
        rows = kernel_size // 2 + include_row
        super().__init__(inputs, outputs, (rows, kernel_size), dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        reach, height = self.reach, x.shape[2]
        padded = F.pad(x, (reach, reach, reach, 0))
        return F.conv2d(padded, self.weight, self.bias, dilation=self.dilation)[:, :, :height]


class HorizontalConv(nn.Conv2d):
    """What lies to the left in the row: columns x - k//2 .. x - 1, and x itself when `include_pixel`.

    `mask`, bool (out, in), restricts the tap on the pixel itself. (N, in, H, W) -> (N, out, H, W).
    """

    mask: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        include_pixel: bool,
        mask: Tensor | None = None,
    ) -> None:
        self.reach = dilation * (kernel_size // 2)
        super().__init__(inputs, outputs, (1, kernel_size // 2 + include_pixel), dilation=dilation)
        if mask is not None:
            left = torch.ones(outputs, inputs, kernel_size // 2, dtype=torch.bool)
            mask = torch.cat((left, mask[:, :, None]), dim=2)[:, :, None]
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.mask is None else self.weight * self.mask
        padded = F.pad(x, (self.reach, 0, 0, 0))
        return F.conv2d(padded, weight, self.bias, dilation=self.dilation)[:, :, :, : x.shape[3]]


class MaskedConv1x1(nn.Conv2d):
    """A 1x1 convolution under a bool (out, in) mask, or none. (N, in, H, W) -> (N, out, H, W)."""

    mask: Tensor | None

    def __init__(self, inputs: int, outputs: int, mask: Tensor | None) -> None:
        super().__init__(inputs, outputs, 1)
        self.register_buffer("mask", None if mask is None else mask[:, :, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.mask is None else self.weight * self.mask
        return F.conv2d(x, weight, self.bias)
