"""The top of PixelCNN and PixelRNN: from features in channel groups to a distribution of every number."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast.likelihoods import Bernoulli, Categorical, Likelihood
from pixelfast.models.causal_conv import MaskedConv1x1, channel_mask


class PixelHead(nn.Module):
    """relu and a 1x1 convolution, twice, under mask B (van den Oord et al. 2016, "Pixel Recurrent Neural Networks").

    Features (N, features, H, W) -> logits (N, levels, C, H, W), or (N, C, H, W) for two levels, see `pixel_likelihood`.
    """

    def __init__(self, features: int, inner: int, channels: int, levels: int, order: str) -> None:
        super().__init__()
        self.levels, self.channels = levels, channels
        self.mix = MaskedConv1x1(features, inner, channel_mask(inner, features, channels, own=True, order=order))
        # The level is the slow index of the output and the channel the fast one: the mask repeats per level.
        outputs = channels if levels == 2 else levels * channels
        self.last = MaskedConv1x1(inner, outputs, channel_mask(channels, inner, channels, own=True, order=order))

    def forward(self, features: Tensor) -> Tensor:
        logits = self.last(F.relu(self.mix(F.relu(features))))
        return logits if self.levels == 2 else logits.unflatten(1, (self.levels, self.channels))


def pixel_likelihood(levels: int) -> Likelihood:
    """One logit per number for two levels (the paper's sigmoid), else a softmax over all levels."""
    return Bernoulli() if levels == 2 else Categorical(levels=levels)
