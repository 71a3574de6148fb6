"""PixelCNN++ (Salimans, Karpathy, Chen and Kingma 2017), to the letter of OpenAI's published network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast import ops
from pixelfast.errors import ShapeError
from pixelfast.likelihoods import DiscretizedLogisticMixture
from pixelfast.models import checks
from pixelfast.models.conditioning import ConditionKind, project
from pixelfast.models.fused import fused
from pixelfast.models.shifted_conv import (
    ShiftedConv2d,
    ShiftedDeconv2d,
    WeightNormConv2d,
    shift_down,
    shift_right,
)

VERTICAL_KERNEL = (2, 3)
HORIZONTAL_KERNEL = (2, 2)
RESOLUTIONS = 3
MULTIPLE = 2 ** (RESOLUTIONS - 1)
DECONV_NORM_AXES = {"in": 0, "out": 1}


def concat_elu(x: Tensor) -> Tensor:
    """elu of x and of -x, side by side: (N, F, H, W) -> (N, 2F, H, W)."""
    return F.elu(torch.cat((x, -x), dim=1))


class GatedResnet(nn.Module):
    """A gated residual block. x (N, filters, H, W), aux (N, aux, H, W) or None -> (N, filters, H, W)."""

    def __init__(self, filters: int, aux: int, dropout: float, condition: ConditionKind, *, rightwards: bool) -> None:
        super().__init__()
        kernel = HORIZONTAL_KERNEL if rightwards else VERTICAL_KERNEL
        self.conv_in = ShiftedConv2d(2 * filters, filters, kernel, rightwards=rightwards)
        self.skip = WeightNormConv2d(2 * aux, filters) if aux else None
        self.dropout = nn.Dropout(dropout)
        self.conv_out = ShiftedConv2d(2 * filters, 2 * filters, kernel, rightwards=rightwards, init_scale=0.1)
        self.condition = condition.projection(2 * filters)

    def forward(self, x: Tensor, aux: Tensor | None, condition: Tensor | None) -> Tensor:
        if fused(self):
            return self._fused_forward(x, aux, condition)
        features = self.conv_in(concat_elu(x))
        if self.skip is not None and aux is not None:
            features = features + self.skip(concat_elu(aux))
        features = self.conv_out(self.dropout(concat_elu(features)))
        if self.condition is not None and condition is not None:
            features = features + project(self.condition, condition)
        value, gate = features.chunk(2, dim=1)
        return x + value * torch.sigmoid(gate)

    def _fused_forward(self, x: Tensor, aux: Tensor | None, condition: Tensor | None) -> Tensor:
        """The same from fused operations, which keep x, aux and the outputs of both convolutions and nothing else."""
        skipped = None if self.skip is None or aux is None else self.skip.after_concat_elu(aux)
        features = self.conv_in.after_concat_elu(x, added=skipped)
        dropout = self.dropout.p if self.dropout.training else 0.0
        features = self.conv_out.after_concat_elu(features, dropout=dropout)
        projected = None if self.condition is None or condition is None else project(self.condition, condition)
        return ops.gated(features, kind="linear", condition=projected, residual=x)


class Level(nn.Module):
    """The blocks of both stacks at one resolution of the encoder (without skips) or decoder (with)."""

    def __init__(self, blocks: int, filters: int, dropout: float, condition: ConditionKind, *, skips: bool) -> None:
        super().__init__()
        vertical_aux, horizontal_aux = (filters, 2 * filters) if skips else (0, filters)
        self.vertical = nn.ModuleList(
            GatedResnet(filters, vertical_aux, dropout, condition, rightwards=False) for _ in range(blocks)
        )
        self.horizontal = nn.ModuleList(
            GatedResnet(filters, horizontal_aux, dropout, condition, rightwards=True) for _ in range(blocks)
        )


class EncoderLevel(Level):
    """Appends the output of every block to its stack's list."""

    def forward(self, vertical: list[Tensor], horizontal: list[Tensor], condition: Tensor | None) -> None:
        for block_v, block_h in zip(self.vertical, self.horizontal, strict=True):
            vertical.append(block_v(vertical[-1], None, condition))
            horizontal.append(block_h(horizontal[-1], vertical[-1], condition))


class DecoderLevel(Level):
    """Takes one skip for every block from the end of its stack's list. (v, h) -> (v, h)."""

    def forward(
        self, v: Tensor, h: Tensor, vertical: list[Tensor], horizontal: list[Tensor], condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        for block_v, block_h in zip(self.vertical, self.horizontal, strict=True):
            v = block_v(v, vertical.pop(), condition)
            h = block_h(h, torch.cat((v, horizontal.pop()), dim=1), condition)
        return v, h


class PixelCNNPlusPlus(nn.Module):
    """PixelCNN++: two stacks of gated residual blocks at three resolutions, with skips.

    Input x: float (N, C, H, W) in [-1, 1]; H and W any multiples of 4. Output: parameters of a discretized
    logistic mixture, (N, 10 * mixtures, H, W) for C = 3 and (N, 3 * mixtures, H, W) for C = 1.

    Arguments:
        shape: (C, H, W) of the images it is made for; C is 1 or 3.
        blocks: gated residual blocks per resolution.
        filters: features of each stack.
        mixtures: components of the mixture.
        classes: number of classes; `condition` is then int64 labels (N,), which add a learned vector, without
            bias or weight norm, before the gate of every block of both stacks.
        dropout: probability that a single activation inside a block is dropped in training.
        deconv_norm: "out": the up-sampling layers' weight norm is per output channel, OpenAI's; "in": per
            input channel, as in networks trained with torch's weight norm on a transposed convolution.

    Source: "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
    Modifications", ICLR 2017. Raises ShapeError for a bad shape, input or condition, PixelfastError for any
    other bad argument.
    """

    input = "signed"

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        blocks: int = 5,
        filters: int = 160,
        mixtures: int = 10,
        classes: int | None = None,
        dropout: float = 0.5,
        deconv_norm: str = "out",
    ) -> None:
        super().__init__()
        self.shape = checks.image_shape(shape)
        channels, height, width = self.shape
        if channels not in (1, 3):
            raise ShapeError(f"PixelCNN++ takes images of 1 or 3 channels, not {channels}")
        _check_multiple(height, width)
        blocks = checks.integer("blocks", blocks, 1, 32)
        filters = checks.integer("filters", filters, 1, checks.MAX_WIDTH)
        mixtures = checks.integer("mixtures", mixtures, 1, 1 << 12)
        dropout = checks.fraction("dropout", dropout)
        norm_axis = DECONV_NORM_AXES[checks.choice("deconv_norm", deconv_norm, tuple(DECONV_NORM_AXES))]
        condition = self.condition = ConditionKind(classes, None, None)
        self.likelihood = DiscretizedLogisticMixture(mixtures=mixtures)
        self.config: dict[str, Any] = {
            "shape": list(self.shape),
            "blocks": blocks,
            "filters": filters,
            "mixtures": mixtures,
            "classes": classes,
            "dropout": dropout,
            "deconv_norm": deconv_norm,
        }

        # A channel of ones lets the network tell zero padding from the value zero.
        inputs = channels + 1
        self.stem_vertical = ShiftedConv2d(inputs, filters, (2, 3), rightwards=False)
        self.stem_above = ShiftedConv2d(inputs, filters, (1, 3), rightwards=False)
        self.stem_left = ShiftedConv2d(inputs, filters, (2, 1), rightwards=True)
        self.encoder = nn.ModuleList(
            EncoderLevel(blocks, filters, dropout, condition, skips=False) for _ in range(RESOLUTIONS)
        )
        self.down_vertical = _resizers(
            lambda: ShiftedConv2d(filters, filters, VERTICAL_KERNEL, rightwards=False, stride=2)
        )
        self.down_horizontal = _resizers(
            lambda: ShiftedConv2d(filters, filters, HORIZONTAL_KERNEL, rightwards=True, stride=2)
        )
        # Each decoder block takes one skip. The first one's input is the encoder's last output, so the
        # coarsest level has one block fewer than the others.
        self.decoder = nn.ModuleList(
            DecoderLevel(blocks + extra, filters, dropout, condition, skips=True) for extra in (0, 1, 1)
        )
        self.up_vertical = _resizers(
            lambda: ShiftedDeconv2d(filters, filters, VERTICAL_KERNEL, rightwards=False, norm_axis=norm_axis)
        )
        self.up_horizontal = _resizers(
            lambda: ShiftedDeconv2d(filters, filters, HORIZONTAL_KERNEL, rightwards=True, norm_axis=norm_axis)
        )
        self.head = WeightNormConv2d(filters, self.likelihood.parameters(channels))

    @property
    def condition_example(self) -> Tensor | None:
        """A zero condition for one image, or None."""
        return self.condition.example(*self.shape[1:])

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        checks.float_images(x, self.shape[0])
        _check_multiple(x.shape[2], x.shape[3])
        self.condition.check(condition, x)

        padded = torch.cat((x, torch.ones_like(x[:, :1])), dim=1)
        # The shift acts on the convolution's output, so the bias does not reach the first row and column.
        vertical = [shift_down(self.stem_vertical(padded))]
        horizontal = [shift_down(self.stem_above(padded)) + shift_right(self.stem_left(padded))]
        for index, level in enumerate(self.encoder):
            level(vertical, horizontal, condition)
            if index < RESOLUTIONS - 1:
                vertical.append(self.down_vertical[index](vertical[-1]))
                horizontal.append(self.down_horizontal[index](horizontal[-1]))

        v, h = vertical.pop(), horizontal.pop()
        for index, level in enumerate(self.decoder):
            v, h = level(v, h, vertical, horizontal, condition)
            if index < RESOLUTIONS - 1:
                v, h = self.up_vertical[index](v), self.up_horizontal[index](h)
        return self.head(F.elu(h))


def _resizers(make: Callable[[], nn.Module]) -> nn.ModuleList:
    return nn.ModuleList(make() for _ in range(RESOLUTIONS - 1))


def _check_multiple(height: int, width: int) -> None:
    if height % MULTIPLE or width % MULTIPLE:
        raise ShapeError(
            f"PixelCNN++ halves the image twice: height and width must be multiples of {MULTIPLE}, "
            f"not {height} x {width}"
        )
