"""Down-sampling by strides, and the ways back up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import CornerConv, MaskedConv
from .registry import idiom


class DownAndUp(nn.Module):
    """A strict stem, a strided layer, a way back up, and a link past both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.down = CornerConv(4, 4, (3, 2), stride=2)
        self.up = self.way_up()
        self.head = nn.Conv2d(8, 4, 1)

    def way_up(self) -> nn.Module:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        low = torch.relu(self.down(h))
        return self.head(torch.cat([h, self.up(low)], dim=1))


@idiom((1, 4, 6))
class TransposedConv(DownAndUp):
    def way_up(self) -> nn.Module:
        return nn.ConvTranspose2d(4, 4, 2, stride=2)


class CroppedTransposed(nn.ConvTranspose2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :, : 2 * x.shape[2], : 2 * x.shape[3]]


@idiom((1, 4, 6))
class TransposedConvCropped(DownAndUp):
    """Kernel 3 with stride 2 and output padding; the surplus below and to the right is cut off."""

    def way_up(self) -> nn.Module:
        return CroppedTransposed(4, 4, 3, stride=2, output_padding=1)


@idiom((1, 4, 6))
class NearestUpsampling(DownAndUp):
    def way_up(self) -> nn.Module:
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), CornerConv(4, 4))


@idiom((1, 4, 6))
class RepeatInterleave(DownAndUp):
    def way_up(self) -> nn.Module:
        return nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        low = self.up(torch.relu(self.down(h)))
        return self.head(torch.cat([h, low.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)], dim=1))


@idiom((1, 4, 6))
class PixelShuffle(DownAndUp):
    def way_up(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 16, 1), nn.PixelShuffle(2))


@idiom((1, 4, 4))
class PixelUnshuffle(nn.Module):
    """Squares of pixels as channels and back: strict only because the coarse layer looks strictly up."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(4, 8, (1, 3), padding=(0, 1))
        self.fine = MaskedConv("A", 1, 2)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        squares = F.pixel_unshuffle(x, 2)
        above = F.pad(self.coarse(squares), (0, 0, 1, 0))[:, :, :-1]
        return self.head(torch.relu(torch.cat([F.pixel_shuffle(above, 2), self.fine(x)], dim=1)))


@idiom((1, 6, 6))
class ThreefoldStride(nn.Module):
    """A stride of 3, kernels of 3, and interpolation by index."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 3, 5)
        self.down = nn.Conv2d(3, 3, 3, stride=3, padding=1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.stem(x))
        low = self.down(F.pad(h, (1, 0, 1, 0))[:, :, :-1, :-1])
        up = F.interpolate(low, size=x.shape[2:], mode="nearest")
        return self.head(torch.cat([h, F.pad(up, (1, 0, 1, 0))[:, :, :-1, :-1]], dim=1))


@idiom((1, 4, 8))
class TwoLevels(nn.Module):
    """Down twice, up twice, with a link at the middle resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 3)
        self.down = nn.ModuleList([CornerConv(3, 3, stride=2), CornerConv(3, 3, stride=2)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(3, 3, 2, stride=2), nn.ConvTranspose2d(3, 3, 2, stride=2)])
        self.head = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.stem(x)]
        for layer in self.down:
            skips.append(layer(F.elu(skips[-1])))
        h = skips.pop()
        for layer in self.up:
            h = layer(F.elu(h)) + skips.pop()
        return self.head(h)
