"""Gated PixelCNN: a vertical and a horizontal stack of gated, possibly dilated, causal convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pixelfast import ops
from pixelfast.errors import PixelfastError
from pixelfast.likelihoods import Categorical
from pixelfast.models import checks
from pixelfast.models.causal_conv import HorizontalConv, MaskedConv1x1, VerticalConv, channel_mask, masked
from pixelfast.models.conditioning import ConditionKind, project
from pixelfast.models.fused import fused

MAX_LAYERS = 128
FORMS = ("plain", "gated_stem")
GATED_STEM_KERNEL = 7
GATED_STEM_HEAD = 512
"""Features between the two last convolutions of a network with a gated stem."""


def gate(features: Tensor) -> Tensor:
    """tanh(first half) * sigmoid(second half) of the channels: (N, 2F, H, W) -> (N, F, H, W)."""
    first, second = features.chunk(2, dim=1)
    return torch.tanh(first) * torch.sigmoid(second)


class Ungated(NamedTuple):
    """The vertical stack before a block's gate: gate(features + condition) is left to whoever reads it.

    features: (N, 2 * hidden, H, W); condition: broadcastable to them.
    """

    features: Tensor
    condition: Tensor | None


class GatedBlock(nn.Module):
    """One layer of both stacks. (v, h) -> (v, h), each (N, hidden, H, W); in training v comes out `Ungated`.

    The link to the horizontal stack is taken before the vertical gate; only the horizontal stack has a
    residual. A condition is added before both gates. `mask`: which features may read which at their pixel.
    """

    def __init__(
        self, hidden: int, kernel_size: int, dilation: int, mask: Tensor | None, condition: ConditionKind
    ) -> None:
        super().__init__()
        self.vertical = VerticalConv(hidden, 2 * hidden, kernel_size, dilation=dilation, include_row=True)
        # The mask is repeated for both halves of the gate.
        self.horizontal = HorizontalConv(
            hidden, 2 * hidden, kernel_size, dilation=dilation, include_pixel=True, mask=mask
        )
        self.link = MaskedConv1x1(2 * hidden, 2 * hidden, None)
        self.mix = MaskedConv1x1(hidden, hidden, mask)
        self.condition_vertical = condition.projection(2 * hidden)
        self.condition_horizontal = condition.projection(2 * hidden)

    def forward(self, v: Tensor | Ungated, h: Tensor, condition: Tensor | None) -> tuple[Tensor | Ungated, Tensor]:
        if fused(self):
            return self._fused_forward(v, h, condition)
        above = self.vertical(v)
        left = self.horizontal(h, self.link(above))
        vertical, horizontal = self._conditions(condition)
        if vertical is not None and horizontal is not None:
            above, left = above + vertical, left + horizontal
        return gate(above), self.mix(gate(left)) + h

    def _fused_forward(self, v: Tensor | Ungated, h: Tensor, condition: Tensor | None) -> tuple[Ungated, Tensor]:
        """The same as one operation for training."""
        features, v_condition = v if isinstance(v, Ungated) else (v, None)
        vertical, horizontal = self._conditions(condition)
        side, mix = (masked(layer.weight, layer.mask) for layer in (self.horizontal, self.mix))
        biases = [layer.bias for layer in (self.vertical, self.horizontal, self.link, self.mix)]
        above, h = ops.gated_block(
            features,
            h,
            [self.vertical.weight, side, self.link.weight, mix],
            [bias for bias in biases if bias is not None],
            v_condition=v_condition,
            h_condition=horizontal,
            dilation=self.vertical.dilation[0],
        )
        return Ungated(above, vertical), h

    def _conditions(self, condition: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """What is added before the vertical and the horizontal gate."""
        if condition is None:
            return None, None
        assert self.condition_vertical is not None and self.condition_horizontal is not None
        return project(self.condition_vertical, condition), project(self.condition_horizontal, condition)


class GatedStem(nn.Module):
    """A first layer of both stacks that is gated itself: (N, hidden, H, W) -> (v, h), each the same.

    As a `GatedBlock` of kernel 7 that does not see the pixel's own row, or pixel, and has no residual.
    """

    def __init__(self, hidden: int, condition: ConditionKind) -> None:
        super().__init__()
        self.vertical = VerticalConv(hidden, 2 * hidden, GATED_STEM_KERNEL, include_row=False)
        self.horizontal = HorizontalConv(hidden, 2 * hidden, GATED_STEM_KERNEL, include_pixel=False)
        self.link = MaskedConv1x1(2 * hidden, 2 * hidden, None)
        self.mix = MaskedConv1x1(hidden, hidden, None)
        self.condition = condition.projection(2 * hidden)

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        above = self.vertical(x)
        left = self.horizontal(x, self.link(above))
        if condition is not None and self.condition is not None:
            added = project(self.condition, condition)
            above, left = above + added, left + added
        return gate(above), self.mix(gate(left))


class GatedPixelCNN(nn.Module):
    """Gated PixelCNN (van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders"), with
    the dilations and the exact arithmetic of the UvA deep-learning notebooks' tutorial 12.

    Input x: (N, C, H, W), as `input` says; any H and W. Output: logits (N, levels, C, H, W).

    Arguments:
        shape: (C, H, W) of the images it is made for.
        levels: number of values a channel takes, 2 to 65536.
        hidden: features of each stack; at least C when the channels are sequential.
        dilations: one block per entry.
        kernel_size: odd, 3 or more; a kernel is kernel_size wide, of which the live half is stored.
        classes: number of classes; `condition` is then int64 labels (N,).
        spatial_condition: channels of a map; `condition` is then floats (N, spatial_condition, H, W).
        vector_condition: length of a vector; `condition` is then floats (N, vector_condition).
        channel_order: "sequential": channel c of a pixel depends on its channels before c, through
            contiguous groups of features; "independent": the channels of a pixel are independent given the
            pixels before. The same for C = 1.
        input: "signed" (floats: levels scaled to [-1, 1]), "unit" ([0, 1]), or "levels" (integers, each read through
            an embedding of `hidden` features; one channel only): for codes, whose numbers mean nothing.
        form: "plain", or "gated_stem", the prior of the PyTorch VQ-VAE most people have: the first layer is of kernel
            7, gated and conditional itself, and two 1x1 convolutions with a relu between them end it. For codes only.

    Raises ShapeError for a bad shape, input or condition, PixelfastError for any other bad argument.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int = 256,
        hidden: int = 64,
        dilations: Sequence[int] = (1, 2, 1, 4, 1, 2, 1),
        kernel_size: int = 3,
        classes: int | None = None,
        spatial_condition: int | None = None,
        vector_condition: int | None = None,
        channel_order: str = "sequential",
        input: str = "signed",
        form: str = "plain",
    ) -> None:
        super().__init__()
        self.shape = checks.image_shape(shape)
        channels = self.shape[0]
        levels = checks.integer("levels", levels, 2, 1 << 16)
        channel_order = checks.choice("channel_order", channel_order, ("sequential", "independent"))
        groups = channels if channel_order == "sequential" else 1
        hidden = checks.integer("hidden", hidden, groups, checks.MAX_WIDTH)
        dilations = checks.integers("dilations", dilations, 1, checks.MAX_SIDE, MAX_LAYERS)
        kernel_size = checks.odd("kernel_size", kernel_size, 3, 63)
        self.input = checks.choice("input", input, ("signed", "unit", "levels"))
        if self.input == "levels" and channels > 1:
            raise PixelfastError(f"input='levels' is for one channel, the shape has {channels}")
        self.form = checks.choice("form", form, FORMS)
        if self.form == "gated_stem" and self.input != "levels":
            raise PixelfastError(f"form='gated_stem' is for codes, input='levels', not {self.input!r}")
        self.condition = ConditionKind(classes, spatial_condition, vector_condition)
        self.likelihood = Categorical(levels=levels)
        self.config: dict[str, Any] = {
            "shape": list(self.shape),
            "levels": levels,
            "hidden": hidden,
            "dilations": list(dilations),
            "kernel_size": kernel_size,
            "classes": classes,
            "spatial_condition": spatial_condition,
            "vector_condition": vector_condition,
            "channel_order": channel_order,
            "input": input,
            "form": form,
        }

        stem_mask = mask = head_mask = None
        if groups > 1:
            stem_mask = channel_mask(hidden, channels, groups, own=False)
            mask = channel_mask(hidden, hidden, groups, own=True)
            head_mask = channel_mask(channels, hidden, groups, own=True)
        features = channels
        if self.input == "levels":
            self.embedding = nn.Embedding(levels, hidden)
            features = hidden
        if self.form == "gated_stem":
            self.stem = GatedStem(hidden, self.condition)
            self.before_head = MaskedConv1x1(hidden, GATED_STEM_HEAD, None)
        else:
            self.stem_vertical = VerticalConv(features, hidden, kernel_size, include_row=False)
            self.stem_horizontal = HorizontalConv(
                features, hidden, kernel_size, include_pixel=groups > 1, mask=stem_mask
            )
        self.blocks = nn.ModuleList(
            GatedBlock(hidden, kernel_size, dilation, mask, self.condition) for dilation in dilations
        )
        # The level is the slow index of the output and the channel the fast one: the mask repeats per level.
        last = GATED_STEM_HEAD if self.form == "gated_stem" else hidden
        self.head = MaskedConv1x1(last, levels * channels, head_mask)

    @property
    def condition_example(self) -> Tensor | None:
        """A zero condition for one image, or None."""
        return self.condition.example(*self.shape[1:])

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        if self.input == "levels":
            checks.integer_images(x, self.shape[0])
        else:
            checks.float_images(x, self.shape[0])
        self.condition.check(condition, x)
        if self.input == "levels":
            x = self.embedding(x[:, 0]).permute(0, 3, 1, 2)
        gated_stem = self.form == "gated_stem"
        v, h = self.stem(x, condition) if gated_stem else (self.stem_vertical(x), self.stem_horizontal(x))
        for block in self.blocks:
            v, h = block(v, h, condition)
        h = nn.functional.relu(self.before_head(h)) if gated_stem else nn.functional.elu(h)
        return self.head(h).unflatten(1, (self.likelihood.levels, self.shape[0]))
