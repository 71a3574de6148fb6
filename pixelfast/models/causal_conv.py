"""Convolutions of the vertical and horizontal stacks, and the channel-group mask inside a pixel.

Only taps that may be non-zero are stored: a "k x k masked kernel" of the literature is kept as its
live rows and columns, so there is nothing to zero and nothing to mutate. The one mask left is inside the
newest pixel, between the groups of channels of a sequential model, and multiplies the weight functionally.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast import ops
from pixelfast.models.fused import fused


def channel_mask(targets: int, sources: int, groups: int, *, own: bool) -> Tensor:
    """Which of the source features a target feature may read at its own pixel: bool (targets, sources).

    Both are split into contiguous groups, as equal as can be, one per channel. A group reads the groups
    before it, and its own when `own` (mask B; without it, mask A, for what reads the image itself).
    """

    def start(group: int, width: int) -> int:
        return -(-group * width // groups)

    mask = torch.zeros(targets, sources, dtype=torch.bool)
    for group in range(groups):
        mask[start(group, targets) : start(group + 1, targets), : start(group + own, sources)] = True
    return mask


def pixel_mask(weight: Tensor, mask: Tensor | None) -> Tensor | None:
    """A mask of the tap on the pixel itself, the last one, as a mask of the whole weight (out, in, 1, taps).

    mask: bool (features, in), repeated over the output channels as often as `features` fits into them.
    """
    if mask is None:
        return None
    whole = torch.ones(weight.shape, dtype=torch.bool)
    whole.unflatten(0, (-1, mask.shape[0]))[..., 0, -1] = mask
    return whole


def masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    """weight * mask, without touching the weight."""
    return weight if mask is None else weight * mask


class VerticalConv(nn.Conv2d):
    """What lies above: rows y - k//2 .. y - 1, and row y when `include_row`, columns x - k//2 .. x + k//2.

    Row y is included in every layer but the first, whose input is the image itself: features of row y of
    this stack then depend on image rows before y only. (N, in, H, W) -> (N, out, H, W).
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, dilation: int = 1, include_row: bool) -> None:
        self.reach = dilation * (kernel_size // 2)
        rows = kernel_size // 2 + include_row
        super().__init__(inputs, outputs, (rows, kernel_size), dilation=dilation)
        self.shift = (self.reach, self.reach, self.reach, 0 if include_row else -dilation)

    def forward(self, x: Tensor) -> Tensor:
        if fused(self):
            return ops.masked_conv(x, self.weight, self.bias, padding=self.shift, dilation=self.dilation[0])
        reach, height = self.reach, x.shape[2]
        padded = F.pad(x, (reach, reach, reach, 0))
        return F.conv2d(padded, self.weight, self.bias, dilation=self.dilation)[:, :, :height]


class HorizontalConv(nn.Conv2d):
    """What lies to the left in the row: columns x - k//2 .. x - 1, and x itself when `include_pixel`.

    `mask` restricts the tap on the pixel itself, see `pixel_mask`. (N, in, H, W) -> (N, out, H, W).
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
        self.shift = (self.reach, 0 if include_pixel else -dilation, 0, 0)
        self.register_buffer("mask", pixel_mask(self.weight, mask), persistent=False)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """`added`, (N, out, H, W), is added to the result."""
        if fused(self):
            return ops.masked_conv(
                x,
                self.weight,
                self.bias,
                padding=self.shift,
                dilation=self.dilation[0],
                mask=self.mask,
                added=added,
            )
        padded = F.pad(x, (self.reach, 0, 0, 0))
        weight = masked(self.weight, self.mask)
        out = F.conv2d(padded, weight, self.bias, dilation=self.dilation)[:, :, :, : x.shape[3]]
        return out if added is None else out + added


class MaskedConv1x1(nn.Conv2d):
    """A 1x1 convolution under a mask, see `pixel_mask`. (N, in, H, W) -> (N, out, H, W)."""

    mask: Tensor | None

    def __init__(self, inputs: int, outputs: int, mask: Tensor | None) -> None:
        super().__init__(inputs, outputs, 1)
        self.register_buffer("mask", pixel_mask(self.weight, mask), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if fused(self):
            return ops.masked_conv(x, self.weight, self.bias, mask=self.mask)
        return F.conv2d(x, masked(self.weight, self.mask), self.bias)
