"""PixelSNAIL over maps of codes: k x k causal convolutions, attention of several heads, a coarser map as condition."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast import ops
from pixelfast.errors import PixelfastError, ShapeError
from pixelfast.likelihoods import Categorical
from pixelfast.models import checks
from pixelfast.models.causal_attention import causal_attention, positions_of
from pixelfast.models.fused import fused
from pixelfast.models.pixel_snail import SnailResnet
from pixelfast.models.shifted_conv import ShiftedConv2d, WeightNormConv2d, shift_down, shift_right
from pixelfast.models.weight_norm import weight_norm

PLACES = 2
"""Features that say where a position is: its row and its column."""


class StrictConv2d(WeightNormConv2d):
    """A k x k kernel of the k - 1 rows above and the part of the pixel's own row to its left, weight-normalised.

    The mask comes before the norm: what it hides counts for nothing. (N, in, H, W) -> (N, out, H, W).
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, init_scale: float = 1.0) -> None:
        super().__init__(inputs, outputs, (kernel_size, kernel_size), init_scale=init_scale)
        beside = kernel_size // 2
        self.padding = (beside, beside, kernel_size - 1, 0)
        mask = torch.ones(kernel_size, kernel_size, dtype=torch.bool)
        mask[-1, beside:] = False
        self.register_buffer("mask", mask, persistent=False)

    def weight(self) -> Tensor:
        return weight_norm(self.weight_v * self.mask, self.weight_g, self.norm_axis)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if fused(self):
            return ops.masked_conv(x, weight, bias, padding=self.padding)
        return F.conv2d(F.pad(x, self.padding), weight, bias)


class SameConv2d(WeightNormConv2d):
    """An ordinary k x k convolution, of what is known beforehand: (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, init_scale: float = 1.0) -> None:
        super().__init__(inputs, outputs, (kernel_size, kernel_size), init_scale=init_scale)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


class ConditionNetwork(nn.Module):
    """Codes (N, 1, h, w), one-hot -> features (N, hidden, h, w): a convolution and gated residual blocks."""

    def __init__(self, levels: int, hidden: int, blocks: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.levels = levels
        layer = partial(SameConv2d, kernel_size=kernel_size)
        self.stem = layer(levels, hidden)
        self.blocks = nn.ModuleList(SnailResnet(hidden, 0, "elu", dropout, None, layer=layer) for _ in range(blocks))

    def forward(self, codes: Tensor) -> Tensor:
        features = self.stem(one_hot(codes, self.levels, self.stem.bias.dtype))
        for block in self.blocks:
            features = block(features, None, None)
        return features


class ConditionalBlock(nn.Module):
    """Convolutional blocks, then attention to earlier positions, or without attention a look at the position alone."""

    def __init__(
        self,
        features: int,
        hidden: int,
        blocks: int,
        kernel_size: int,
        heads: int,
        dropout: float,
        condition: int | None,
    ) -> None:
        super().__init__()
        width = features // 2

        def narrow(inputs: int, aux: int = 0) -> SnailResnet:
            return SnailResnet(inputs, aux, "elu", dropout, None, hidden=features, layer=WeightNormConv2d)

        def wide() -> SnailResnet:
            projection = None if condition is None else WeightNormConv2d(condition, 2 * features)
            layer = partial(StrictConv2d, kernel_size=kernel_size)
            return SnailResnet(features, 0, "elu", dropout, projection, hidden=hidden, layer=layer)

        self.heads, self.dropout = heads, dropout
        self.blocks = nn.ModuleList(wide() for _ in range(blocks))
        if heads:
            self.content = narrow(2 * features + PLACES)
            self.key = WeightNormConv2d(2 * features + PLACES, width)
            self.value = WeightNormConv2d(2 * features + PLACES, width)
            self.question = narrow(features + PLACES)
            self.query = WeightNormConv2d(features + PLACES, width)
            self.merge = narrow(features, width)
        else:
            self.mix = WeightNormConv2d(features + PLACES, features)

    def forward(self, x: Tensor, places: Tensor, condition: Tensor | None) -> Tensor:
        h = x
        for block in self.blocks:
            h = block(h, None, condition)
        seen = torch.cat((h, places), dim=1)
        if not self.heads:
            return self.mix(seen)
        content = self.content(torch.cat((x, h, places), dim=1), None, None)
        query = self.query(self.question(seen, None, None))
        key, value = self.key(content), self.value(content)
        dropped = self.dropout if self.training else 0.0
        return self.merge(h, causal_attention(query, key, value, self.heads, dropout=dropped), None)


class ConditionalPixelSNAIL(nn.Module):
    """PixelSNAIL over codes, as the priors of VQ-VAE-2 (Razavi et al. 2019): the form of their PyTorch port most
    people have.

    Input x: int64 (N, 1, H, W), codes, read one-hot. Output: logits (N, levels, 1, H, W). With `condition_shape` the
    condition is a coarser map of codes, int64 (N, 1, h, w); what is computed of it alone is up-sampled by repetition.

    Arguments:
        shape: (1, H, W) of the map it is made for.
        levels: number of codes, 2 to 65536.
        features: of the stream; half as many are attended to.
        hidden: features inside a convolutional block.
        parts: how often blocks are followed by an attention, or by a 1x1 convolution without one.
        blocks: gated residual blocks of causal convolutions in each part.
        kernel_size: odd, 3 or more: a convolution sees so many columns, and so many rows with the pixel's own.
        heads: of attention, a divisor of features // 2; 0 for none, and for maps too large to attend to.
        head_blocks: 1x1 residual blocks before the output.
        condition_shape: (1, h, w) of the condition, H and W being multiples of h and w; none: no condition.
        condition_levels: number of its codes; none: as many as `levels`.
        condition_hidden, condition_blocks, condition_kernel_size: of the network that reads it.
        dropout: probability that an activation inside a block, or an attention's weight, is dropped in training.

    Source: "Generating Diverse High-Fidelity Images with VQ-VAE-2", section 3.2. Raises ShapeError for a bad shape,
    input or condition, PixelfastError for any other bad argument.
    """

    input = "levels"

    def __init__(
        self,
        shape: Sequence[int] = (1, 32, 32),
        levels: int = 512,
        features: int = 256,
        hidden: int = 256,
        parts: int = 4,
        blocks: int = 4,
        kernel_size: int = 5,
        heads: int = 8,
        head_blocks: int = 0,
        condition_shape: Sequence[int] | None = None,
        condition_levels: int | None = None,
        condition_hidden: int = 256,
        condition_blocks: int = 3,
        condition_kernel_size: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.shape = checks.image_shape(shape)
        if self.shape[0] != 1:
            raise ShapeError(f"ConditionalPixelSNAIL takes maps of codes, (1, H, W), not {self.shape[0]} channels")
        levels = checks.integer("levels", levels, 2, 1 << 16)
        features = checks.integer("features", features, 2, checks.MAX_WIDTH)
        hidden = checks.integer("hidden", hidden, 1, checks.MAX_WIDTH)
        parts = checks.integer("parts", parts, 1, 128)
        blocks = checks.integer("blocks", blocks, 0, 128)
        kernel_size = checks.odd("kernel_size", kernel_size, 3, 63)
        heads = checks.integer("heads", heads, 0, 128)
        head_blocks = checks.integer("head_blocks", head_blocks, 0, 128)
        dropout = checks.fraction("dropout", dropout)
        if heads and (features // 2) % heads:
            raise PixelfastError(f"features // 2 = {features // 2} are attended to, no multiple of {heads} heads")
        self.condition_shape = None if condition_shape is None else checks.image_shape(condition_shape)
        condition = None
        if self.condition_shape is not None:
            one, height, width = self.condition_shape
            if one != 1 or self.shape[1] % height or self.shape[2] % width:
                raise ShapeError(
                    f"condition_shape must be (1, h, w), where h and w divide {self.shape[1]} and {self.shape[2]}, not "
                    f"{self.condition_shape}"
                )
            condition = checks.integer("condition_hidden", condition_hidden, 1, checks.MAX_WIDTH)
            self.condition_levels = checks.integer("condition_levels", condition_levels or levels, 2, 1 << 16)
            self.condition_network = ConditionNetwork(
                self.condition_levels,
                condition,
                checks.integer("condition_blocks", condition_blocks, 0, 128),
                checks.odd("condition_kernel_size", condition_kernel_size, 1, 63),
                dropout,
            )
        self.likelihood = Categorical(levels=levels)
        self.config: dict[str, Any] = {
            "shape": list(self.shape),
            "levels": levels,
            "features": features,
            "hidden": hidden,
            "parts": parts,
            "blocks": blocks,
            "kernel_size": kernel_size,
            "heads": heads,
            "head_blocks": head_blocks,
            "condition_shape": None if self.condition_shape is None else list(self.condition_shape),
            "condition_levels": condition_levels,
            "condition_hidden": condition_hidden,
            "condition_blocks": condition_blocks,
            "condition_kernel_size": condition_kernel_size,
            "dropout": dropout,
        }
        half = kernel_size // 2
        self.stem_above = ShiftedConv2d(levels, features, (half, kernel_size), rightwards=False)
        self.stem_left = ShiftedConv2d(levels, features, (half + 1, half), rightwards=True)
        self.parts = nn.ModuleList(
            ConditionalBlock(features, hidden, blocks, kernel_size, heads, dropout, condition) for _ in range(parts)
        )
        self.head_blocks = nn.ModuleList(
            SnailResnet(features, 0, "elu", dropout, None, hidden=hidden, layer=WeightNormConv2d)
            for _ in range(head_blocks)
        )
        self.head = WeightNormConv2d(features, levels)

    @property
    def condition_example(self) -> Tensor | None:
        """A zero condition for one map, or None."""
        return None if self.condition_shape is None else torch.zeros(1, *self.condition_shape, dtype=torch.int64)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        checks.integer_images(x, 1)
        seen = self._condition(x, condition)
        codes = one_hot(x, self.likelihood.levels, self.head.bias.dtype)
        h = shift_down(self.stem_above(codes)) + shift_right(self.stem_left(codes))
        places = positions_of(h).expand(len(h), -1, -1, -1)
        for part in self.parts:
            h = part(h, places, seen)
        for block in self.head_blocks:
            h = block(h, None, None)
        return self.head(F.elu(h))[:, :, None]

    def _condition(self, x: Tensor, condition: Tensor | None) -> Tensor | None:
        """What every block is given of the condition: features of the size of x."""
        if self.condition_shape is None:
            if condition is not None:
                raise ShapeError("this model takes no condition; leave it out")
            return None
        if condition is None or condition.dtype != torch.int64 or condition.shape != (len(x), *self.condition_shape):
            given = "none" if condition is None else f"{condition.dtype} {tuple(condition.shape)}"
            wanted = (len(x), *self.condition_shape)
            raise ShapeError(f"the condition must be codes, int64 {wanted}, not {given}")
        return F.interpolate(self.condition_network(condition), size=x.shape[2:], mode="nearest")


def one_hot(codes: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Integers (N, 1, h, w) -> (N, levels, h, w), 1 where the code is and 0 elsewhere."""
    return F.one_hot(codes[:, 0].long(), levels).permute(0, 3, 1, 2).to(dtype)
