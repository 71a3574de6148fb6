"""PixelCNN++'s weight-normalised convolutions, causal by what is padded (Salimans et al. 2017).

A layer of the vertical stack ("down-shifted") sees the rows up to its own and as many columns on either
side; a layer of the horizontal stack ("down-right-shifted") sees the rows up to its own and the columns up
to its own. `rightwards` chooses the second.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelfast import ops
from pixelfast.models.weight_norm import weight_norm


def shift_down(x: Tensor) -> Tensor:
    """Every row moves down by one, zeros come in at the top."""
    return F.pad(x[:, :, :-1], (0, 0, 1, 0))


def shift_right(x: Tensor) -> Tensor:
    """Every column moves right by one, zeros come in at the left."""
    return F.pad(x[:, :, :, :-1], (1, 0, 0, 0))


class WeightNormConv2d(nn.Module):
    """A 1x1 convolution ("network in network") with weight norm; the base of the shifted ones.

    weight_v (out, in, kh, kw) is the direction, weight_g the magnitude along `norm_axis`, bias (out,).
    `init_scale` is the standard deviation its outputs are given by `initialise_from_data`.
    """

    output_axis = 0
    padding = (0, 0, 0, 0)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        norm_axis: int | None = None,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.norm_axis = self.output_axis if norm_axis is None else norm_axis
        self.init_scale = init_scale
        sides = (outputs, inputs) if self.output_axis == 0 else (inputs, outputs)
        self.weight_v = nn.Parameter(torch.empty(*sides, *kernel))
        self.weight_g = nn.Parameter(torch.empty(sides[self.norm_axis]))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """OpenAI's start before its data-dependent step: directions N(0, 0.05), no bias."""
        nn.init.normal_(self.weight_v, std=0.05)
        nn.init.constant_(self.weight_g, self.init_scale)
        nn.init.zeros_(self.bias)

    def weight(self) -> Tensor:
        """The weight the convolution uses."""
        return weight_norm(self.weight_v, self.weight_g, self.norm_axis)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The bare convolution, before anything is cropped."""
        return F.conv2d(x, weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight(), self.bias)

    def after_concat_elu(self, x: Tensor, *, dropout: float = 0.0, added: Tensor | None = None) -> Tensor:
        """added + the layer applied to dropout(concat_elu(x)), as one operation for training. Stride 1 only."""
        return ops.concat_elu_conv(x, self.weight(), self.bias, padding=self.padding, dropout=dropout, added=added)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight_v.shape)}, norm_axis={self.norm_axis}"


class ShiftedConv2d(WeightNormConv2d):
    """(N, in, H, W) -> (N, out, H / stride, W / stride), for H and W multiples of the stride."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        rightwards: bool,
        stride: int = 1,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__(inputs, outputs, kernel, init_scale=init_scale)
        rows, columns = kernel
        left = columns - 1 if rightwards else (columns - 1) // 2
        self.padding = (left, columns - 1 - left, rows - 1, 0)
        self.stride = stride

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(F.pad(x, self.padding), weight, bias, stride=self.stride)


class ShiftedDeconv2d(WeightNormConv2d):
    """Up-sampling by 2: (N, in, H, W) -> (N, out, 2H, 2W).

    The transposed convolution of (2H + kh - 1, 2W + kw - 1) is cropped to what is causal. weight_v is (in,
    out, kh, kw); the norm is taken per output channel (norm_axis 1, OpenAI's) or per input channel (0).
    """

    output_axis = 1

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], *, rightwards: bool, norm_axis: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, norm_axis=norm_axis)
        self.left = 0 if rightwards else (kernel[1] - 1) // 2

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv_transpose2d(x, weight, bias, stride=2, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        return super().forward(x)[:, :, :height, self.left : self.left + width]
