"""Every kind of input: integers, scaled values, tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelfast import Categorical

from .causal import MaskedConv
from .registry import idiom


def network(outputs: int = 4, inputs: int = 1) -> nn.Module:
    return nn.Sequential(MaskedConv("A", inputs, 5), nn.ReLU(), MaskedConv("B", 5, outputs))


@idiom(input="signed")
def signed_input() -> nn.Module:
    return network()


@idiom(input="unit")
def unit_input() -> nn.Module:
    return network()


@idiom(input=torch.tensor([-2.0, 0.5, 0.625, 3.0]))
def table_input() -> nn.Module:
    return network()


class Colours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).unflatten(1, (3, 2))


@idiom((2, 3, 4), Categorical(3), input=torch.tensor([[-1.0, 0.25, 1.0], [0.0, 4.0, -0.5]]))
def table_per_channel() -> nn.Module:
    return Colours()


class Scaled(nn.Module):
    """Does its own scaling of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def scale(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.scale(x))


@idiom(input="levels")
class LevelsScaledInside(Scaled):
    def scale(self, x: Tensor) -> Tensor:
        return (x.to(self.net[0].weight.dtype) - 1.5) / 2


@idiom(input="index")
class IndexScaledInside(Scaled):
    def scale(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1).to(self.net[0].weight).mul(2).div(3).sub_(1)


@idiom(input="levels", runs_in_double=False)
class CastToFloat(Scaled):
    """.float() in forward: cannot be run in float64."""

    def scale(self, x: Tensor) -> Tensor:
        return x.float() / 4 - 0.5


@idiom(input="levels")
class BitsOfLevels(Scaled):
    """Integer arithmetic on levels: quotients and remainders."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(4, 2)

    def scale(self, x: Tensor) -> Tensor:
        return torch.cat([x // 2, x % 2], dim=1).to(self.net[0].weight.dtype)


@idiom(likelihood=Categorical(2), input="index")
class BinaryIndex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.where(x[:, None] > 0, 1.0, -1.0).to(self.net[0].weight))
