"""Convolutions of the vertical and horizontal stacks, and the channel-group mask inside a pixel.

Only taps that may be non-zero are stored: a "k x k masked kernel" of the literature is kept as its
live rows and columns, so there is nothing to zero and nothing to mutate. What masks are left, between the groups of
channels at the newest pixel and to the right of it in `MaskedConv2d`, multiply the weight functionally.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast import ops
from pixelfast.models.fused import fused

CHANNEL_GROUPS = ("contiguous", "interleaved")
"""How features are dealt out to channels: in one run each, or in turn (feature i to channel i modulo their number)."""


def channel_mask(targets: int, sources: int, groups: int, *, own: bool, order: str = "contiguous") -> Tensor:
    """Which of the source features a target feature may read at its own pixel: bool (targets, sources).

    Both are split into groups, as equal as can be, one per channel, see `CHANNEL_GROUPS`. A group reads the groups
    before it, and its own when `own` (mask B; without it, mask A, for what reads the image itself).
    """

    def group_of(features: int) -> Tensor:
        index = torch.arange(features)
        return index % groups if order == "interleaved" else index * groups // features

    target, source = group_of(targets)[:, None], group_of(sources)[None]
    return source <= target if own else source < target


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


class MaskedConv2d(nn.Conv2d):
    """The masked k x k kernel of the first PixelCNN and PixelRNN: all rows above, and the row up to the pixel itself.

    `mask` restricts the tap on the pixel itself, see `pixel_mask`; without one it is read whole. The rows below the
    pixel are not stored; what lies to its right is, and is multiplied by zero. (N, in, H, W) -> (N, out, H, W).

    kernel_size: (rows, columns) of the whole kernel, both odd.
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel_size: tuple[int, int], mask: Tensor | None = None) -> None:
        above, beside = kernel_size[0] // 2, kernel_size[1] // 2
        super().__init__(inputs, outputs, (above + 1, kernel_size[1]))
        whole = torch.ones(self.weight.shape, dtype=torch.bool)
        whole[:, :, -1, beside + 1 :] = False
        if mask is not None:
            whole.unflatten(0, (-1, mask.shape[0]))[..., -1, beside] = mask
        self.register_buffer("mask", whole, persistent=False)
        self.shift = (beside, beside, above, 0)

    def forward(self, x: Tensor) -> Tensor:
        if fused(self):
            return ops.masked_conv(x, self.weight, self.bias, padding=self.shift, mask=self.mask)
        return F.conv2d(F.pad(x, self.shift), masked(self.weight, self.mask), self.bias)
