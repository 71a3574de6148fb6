"""Every likelihood in every layout that it takes, and functions that pick it out of what forward returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelfast import Bernoulli, Categorical, DiscretizedLogisticMixture

from .causal import MaskedConv
from .registry import idiom


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(MaskedConv("A", inputs, 6), nn.ELU(), MaskedConv("B", 6, outputs))


@idiom(likelihood=Bernoulli(), input="unit")
def bernoulli() -> nn.Module:
    return network(1, 1)


@idiom((2, 3, 4), Bernoulli())
def bernoulli_of_two_channels() -> nn.Module:
    return network(2, 2)


@idiom(likelihood=DiscretizedLogisticMixture(mixtures=2, levels=8))
def mixture_of_one_channel() -> nn.Module:
    return network(1, 6)


@idiom((3, 3, 4), DiscretizedLogisticMixture(mixtures=2, levels=256))
def mixture_of_three_channels() -> nn.Module:
    return network(3, 20)


@idiom((3, 3, 4), Categorical(5))
class CategoricalByLevelFirst(nn.Module):
    """(N, levels, C, H, W) straight from a view."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(3, 15)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).view(len(x), 5, 3, *x.shape[2:])


@idiom(likelihood=Categorical(300))
def many_levels() -> nn.Module:
    return network(1, 300)


class Several(nn.Module):
    """Returns more than the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.head = nn.Conv2d(4, 4, 1)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.stem(x))
        return h, self.head(h)


@idiom(outputs=lambda result: result[1])
class TupleOfOutputs(Several):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.features(x)


@idiom(outputs=lambda result: result["logits"].permute(0, 3, 1, 2) * 2)
class DictOfOutputs(Several):
    """Logits with the levels last."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h, logits = self.features(x)
        return {"features": h, "logits": logits.permute(0, 2, 3, 1)}


@idiom((2, 3, 4), Bernoulli(), outputs=lambda result: result.sigmoid().logit())
def probabilities_to_logits() -> nn.Module:
    return network(2, 2)


@idiom(outputs=lambda result: torch.stack(result, dim=1))
class ListOfLevels(Several):
    """One map per level, in a list; some without a batch axis of channels."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.features(x)[1].unbind(1))
