"""PixelCNN: masked convolutions in residual blocks, channels sampled one after another inside a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast.models import checks
from pixelfast.models.causal_conv import CHANNEL_GROUPS, MaskedConv1x1, MaskedConv2d, channel_mask
from pixelfast.models.pixel_head import PixelHead, pixel_likelihood

STEM = (7, 7)
NEAR = (3, 3)


class ResidualBlock(nn.Module):
    """x + expand(relu(near(relu(reduce(relu(x)))))), all under mask B: (N, 2 * hidden, H, W) to the same.

    `reduce` and `expand` are 1x1 convolutions to `hidden` features and back, `near` is a 3x3 one. Figure 5, left.
    """

    def __init__(self, hidden: int, channels: int, order: str) -> None:
        super().__init__()
        narrow, wide = hidden, 2 * hidden
        self.reduce = MaskedConv1x1(wide, narrow, channel_mask(narrow, wide, channels, own=True, order=order))
        self.near = MaskedConv2d(narrow, narrow, NEAR, channel_mask(narrow, narrow, channels, own=True, order=order))
        self.expand = MaskedConv1x1(narrow, wide, channel_mask(wide, narrow, channels, own=True, order=order))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(F.relu(self.near(F.relu(self.reduce(F.relu(x))))))


class PixelCNN(nn.Module):
    """PixelCNN (van den Oord, Kalchbrenner and Kavukcuoglu 2016, "Pixel Recurrent Neural Networks", section 3.5).

    A 7x7 convolution under mask A, residual blocks around 3x3 convolutions under mask B, and two 1x1 convolutions.
    The features belong to the channels in groups: red sees the pixels before, green red as well, blue both.

    Input x: float (N, C, H, W) in [-1, 1]; any H and W. Output: logits (N, levels, C, H, W); for two levels one logit
    per number, (N, C, H, W).

    Arguments:
        shape: (C, H, W) of the images it is made for.
        levels: number of values a channel takes, 2 to 65536.
        hidden: features inside a block (h of the paper), at least C; the stream between blocks has twice as many.
        blocks: residual blocks.
        head_hidden: features between the last two convolutions.
        channel_groups: which features belong to which channel: "contiguous" runs, or "interleaved", in turn.

    Raises ShapeError for a bad shape or input, PixelfastError for any other bad argument.
    """

    input = "signed"
    condition_example = None

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        levels: int = 256,
        hidden: int = 128,
        blocks: int = 15,
        head_hidden: int = 1024,
        channel_groups: str = "contiguous",
    ) -> None:
        super().__init__()
        self.shape = checks.image_shape(shape)
        channels = self.shape[0]
        levels = checks.integer("levels", levels, 2, 1 << 16)
        hidden = checks.integer("hidden", hidden, channels, checks.MAX_WIDTH)
        blocks = checks.integer("blocks", blocks, 0, 128)
        head_hidden = checks.integer("head_hidden", head_hidden, channels, checks.MAX_WIDTH)
        order = checks.choice("channel_groups", channel_groups, CHANNEL_GROUPS)
        self.likelihood = pixel_likelihood(levels)
        self.config: dict[str, Any] = {
            "shape": list(self.shape),
            "levels": levels,
            "hidden": hidden,
            "blocks": blocks,
            "head_hidden": head_hidden,
            "channel_groups": channel_groups,
        }
        first = channel_mask(2 * hidden, channels, channels, own=False, order=order)
        self.stem = MaskedConv2d(channels, 2 * hidden, STEM, first)
        self.blocks = nn.ModuleList(ResidualBlock(hidden, channels, order) for _ in range(blocks))
        self.head = PixelHead(2 * hidden, head_hidden, channels, levels, order)

    def forward(self, x: Tensor) -> Tensor:
        checks.float_images(x, self.shape[0])
        features = self.stem(x)
        for block in self.blocks:
            features = block(features)
        return self.head(features)
