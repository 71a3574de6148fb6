"""PixelSNAIL (Chen, Mishra, Rohaninejad and Abbeel 2018): causal convolutions and causal attention in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast.errors import ShapeError
from pixelfast.likelihoods import DiscretizedLogisticMixture
from pixelfast.models import checks
from pixelfast.models.causal_attention import causal_attention, positions_of
from pixelfast.models.conditioning import ConditionKind, project
from pixelfast.models.pixelcnn_plus_plus import HORIZONTAL_KERNEL, concat_elu
from pixelfast.models.shifted_conv import ShiftedConv2d, WeightNormConv2d, shift_down, shift_right

EPSILON = 1e-6
"""Added to the sum of the attention's weights, as in the published code."""
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {"elu": (F.elu, 1), "concat_elu": (concat_elu, 2)}
"""What each is, and how many features it makes of one."""


class Layer(Protocol):
    """What makes a block's convolutions."""

    def __call__(self, inputs: int, outputs: int, *, init_scale: float = 1.0) -> WeightNormConv2d: ...


class SnailResnet(nn.Module):
    """A gated residual block of two convolutions that `layer` makes.

    x (N, features, H, W), aux (N, aux, H, W) or None -> (N, features, H, W). `condition` projects what is added
    before the gate. hidden: features between the convolutions, as many as outside unless given.
    """

    def __init__(
        self,
        features: int,
        aux: int,
        activation: str,
        dropout: float,
        condition: nn.Module | None,
        *,
        layer: Layer,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.activation, times = ACTIVATIONS[activation]
        hidden = hidden or features
        self.conv_in = layer(times * features, hidden)
        self.skip = WeightNormConv2d(times * aux, hidden) if aux else None
        self.dropout = nn.Dropout(dropout)
        self.conv_out = layer(times * hidden, 2 * features, init_scale=0.1)
        self.condition = condition

    def forward(self, x: Tensor, aux: Tensor | None, condition: Tensor | None) -> Tensor:
        features = self.conv_in(self.activation(x))
        if self.skip is not None and aux is not None:
            features = features + self.skip(self.activation(aux))
        features = self.conv_out(self.dropout(self.activation(features)))
        if self.condition is not None and condition is not None:
            features = features + project(self.condition, condition)
        value, gate = features.chunk(2, dim=1)
        return x + value * torch.sigmoid(gate)


class AttentionBlock(nn.Module):
    """Convolutional blocks, then attention to all earlier positions, whose keys and values know their own pixel."""

    def __init__(
        self,
        channels: int,
        filters: int,
        blocks: int,
        key_width: int,
        activation: str,
        dropout: float,
        condition: ConditionKind,
    ) -> None:
        super().__init__()

        def block(features: int, aux: int, layer: Layer) -> SnailResnet:
            return SnailResnet(features, aux, activation, dropout, condition.projection(2 * features), layer=layer)

        def narrow(features: int, aux: int = 0) -> SnailResnet:
            return block(features, aux, WeightNormConv2d)

        value_width = filters // 2
        places = 2 * channels
        self.key_width = key_width
        wide = partial(ShiftedConv2d, kernel=HORIZONTAL_KERNEL, rightwards=True)
        self.blocks = nn.ModuleList(block(filters, 0, wide) for _ in range(blocks))
        self.content = narrow(channels + filters + places)
        self.key_value = WeightNormConv2d(channels + filters + places, key_width + value_width)
        self.question = narrow(filters + places)
        self.query = WeightNormConv2d(filters + places, key_width)
        self.merge = narrow(filters, value_width)

    def forward(self, x: Tensor, h: Tensor, places: Tensor, condition: Tensor | None) -> Tensor:
        for block in self.blocks:
            h = block(h, None, condition)
        # The image itself is read too: the mask is strict, so nobody attends to a pixel that is not known.
        content = self.content(torch.cat((x, h, places), dim=1), None, condition)
        key_value = self.key_value(content)
        key, value = key_value[:, : self.key_width], key_value[:, self.key_width :]
        query = self.query(self.question(torch.cat((h, places), dim=1), None, condition))
        return self.merge(h, causal_attention(query, key, value, epsilon=EPSILON), condition)


class PixelSNAIL(nn.Module):
    """PixelSNAIL: one stream of causal gated residual blocks with attention after every few of them.

    Input x: float (N, C, H, W) in [-1, 1]. Output: parameters of a discretized logistic mixture, (N, 10 * mixtures,
    H, W) for C = 3 and (N, 3 * mixtures, H, W) for C = 1. Attention compares every pair of positions.

    Arguments:
        shape: (C, H, W) of the images it is made for; C is 1 or 3.
        attentions: how many attentions there are.
        blocks: gated residual blocks before each.
        filters: features of the stream; half as many are attended to.
        key_width: length of queries and keys.
        mixtures: components of the mixture.
        classes: number of classes; `condition` is then int64 labels (N,), which add a learned vector before the gate
            of every block.
        dropout: probability that a single activation inside a block is dropped in training.
        activation: "elu", as the published networks were trained with, or "concat_elu".

    Source: "PixelSNAIL: An Improved Autoregressive Generative Model", ICML 2018, and its published code. Raises
    ShapeError for a bad shape, input or condition, PixelfastError for any other bad argument.
    """

    input = "signed"

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        attentions: int = 12,
        blocks: int = 4,
        filters: int = 256,
        key_width: int = 16,
        mixtures: int = 10,
        classes: int | None = None,
        dropout: float = 0.5,
        activation: str = "elu",
    ) -> None:
        super().__init__()
        self.shape = checks.image_shape(shape)
        channels = self.shape[0]
        if channels not in (1, 3):
            raise ShapeError(f"PixelSNAIL takes images of 1 or 3 channels, not {channels}")
        attentions = checks.integer("attentions", attentions, 1, 128)
        blocks = checks.integer("blocks", blocks, 0, 128)
        filters = checks.integer("filters", filters, 2, checks.MAX_WIDTH)
        key_width = checks.integer("key_width", key_width, 1, checks.MAX_WIDTH)
        mixtures = checks.integer("mixtures", mixtures, 1, 1 << 12)
        dropout = checks.fraction("dropout", dropout)
        activation = checks.choice("activation", activation, tuple(ACTIVATIONS))
        condition = self.condition = ConditionKind(classes, None, None)
        self.likelihood = DiscretizedLogisticMixture(mixtures=mixtures)
        self.config: dict[str, Any] = {
            "shape": list(self.shape),
            "attentions": attentions,
            "blocks": blocks,
            "filters": filters,
            "key_width": key_width,
            "mixtures": mixtures,
            "classes": classes,
            "dropout": dropout,
            "activation": activation,
        }
        self.stem_above = ShiftedConv2d(channels + 1, filters, (1, 3), rightwards=False)
        self.stem_left = ShiftedConv2d(channels + 1, filters, (2, 1), rightwards=True)
        self.parts = nn.ModuleList(
            AttentionBlock(channels, filters, blocks, key_width, activation, dropout, condition)
            for _ in range(attentions)
        )
        self.head = WeightNormConv2d(filters, self.likelihood.parameters(channels))

    @property
    def condition_example(self) -> Tensor | None:
        """A zero condition for one image, or None."""
        return self.condition.example(*self.shape[1:])

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        checks.float_images(x, self.shape[0])
        self.condition.check(condition, x)
        # A channel of ones lets the network tell zero padding from the value zero.
        padded = torch.cat((x, torch.ones_like(x[:, :1])), dim=1)
        h = shift_down(self.stem_above(padded)) + shift_right(self.stem_left(padded))
        # Row and column are there once per colour, as in the published network.
        places = positions_of(x).repeat_interleave(x.shape[1], dim=1).expand(len(x), -1, -1, -1)
        for part in self.parts:
            h = part(x, h, places, condition)
        return self.head(F.elu(h))
