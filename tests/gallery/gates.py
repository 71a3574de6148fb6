"""Gates and activations that take two halves of the channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .causal import MaskedConv
from .registry import idiom


class Gated(nn.Module):
    """A masked convolution to twice the features, a gate, a residual, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.conv = MaskedConv("B", 4, 8)
        self.head = nn.Conv2d(4, 4, 1)

    def gate(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.head(h + self.gate(self.conv(torch.relu(h))))


@idiom()
class GatedLinearUnit(Gated):
    def gate(self, x: Tensor) -> Tensor:
        return F.glu(x, dim=1)


@idiom()
class TanhSigmoidHalves(Gated):
    def gate(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.tanh(first) * torch.sigmoid(second)


@idiom()
class TanhSigmoidEvenOdd(Gated):
    def gate(self, x: Tensor) -> Tensor:
        return torch.tanh(x[:, ::2]) * torch.sigmoid(x[:, 1::2])


@idiom()
class TanhSigmoidSplit(Gated):
    """Unequal arguments of split, and the halves swapped."""

    def gate(self, x: Tensor) -> Tensor:
        first, second = torch.split(x, [4, 4], dim=1)
        return second.tanh().mul(first.sigmoid())


@idiom()
class HighwayGate(Gated):
    """g * a + (1 - g) * b."""

    def gate(self, x: Tensor) -> Tensor:
        gate, value = torch.sigmoid(x[:, :4]), x[:, 4:]
        return gate * value.abs() + (1 - gate) * value


@idiom()
class Lerp(Gated):
    def gate(self, x: Tensor) -> Tensor:
        return torch.lerp(x[:, :4], x[:, 4:], torch.sigmoid(x[:, 2:6]))


@idiom()
class ConcatElu(nn.Module):
    """elu of x and of -x, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 3)
        self.conv = MaskedConv("B", 6, 3)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h = h + self.conv(F.elu(torch.cat([h, -h], dim=1)))
        return self.head(F.elu(torch.cat([h, -h], dim=1)))


@idiom()
class ConcatReluInterleaved(nn.Module):
    """relu of x and of -x as neighbouring channels, by stack and flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 3)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.head(F.relu(torch.stack([h, -h], dim=2)).flatten(1, 2))


class Activations(nn.Module):
    """One activation per feature."""

    def __init__(self, *activations: nn.Module) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, len(activations))
        self.activations = nn.ModuleList(activations)
        self.head = nn.Conv2d(len(activations), 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.stem(x).split(1, dim=1), self.activations, strict=True)
        return self.head(torch.cat([f(h) for h, f in pairs], dim=1))


@idiom()
def smooth_activations() -> nn.Module:
    return Activations(nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Mish(), nn.GELU("tanh"), nn.Softsign())


@idiom()
def kinked_activations() -> nn.Module:
    kinked = (nn.ReLU6(), nn.Hardtanh(), nn.LeakyReLU(0.2), nn.PReLU(), nn.Hardswish(), nn.Hardsigmoid())
    return Activations(*kinked, nn.Threshold(0.1, -0.5))


@idiom()
def shrinking_activations() -> nn.Module:
    return Activations(nn.Hardshrink(0.3), nn.Softshrink(0.2))


@idiom()
def exponential_activations() -> nn.Module:
    return Activations(nn.ELU(0.7), nn.SELU(), nn.CELU(0.5), nn.LogSigmoid(), nn.Tanhshrink())


@idiom()
class Arithmetic(nn.Module):
    """Elementwise functions of the kind that hand-written networks hold."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e, f, g, h = self.stem(x).unbind(1)
        positive = 1.0 + a**2
        parts = [
            a / positive,
            2.0 - b.clamp(-0.5, 1.5),
            c.square().log1p(),
            positive.rsqrt() * torch.exp(-d.abs()),
            torch.maximum(e, -f).sign() + torch.minimum(e, f),
            torch.addcmul(g, a, b, value=0.5),
            torch.sin(h) * 3 + torch.cos(f).pow(3),
            torch.where(h > 0, g, -a) + (c >= d) + torch.floor(e),
        ]
        return self.head(torch.stack(parts, dim=1))
