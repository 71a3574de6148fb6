"""What would be frozen at its recorded value, or fooled by a constant, is refused and never silently wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pixelfast

CATEGORICAL = pixelfast.Categorical(4)


class Base(nn.Module):
    """One causal convolution; subclasses spoil it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, (2, 2))

    def causal(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (2, 0, 1, 0))[..., :-1])


class FactorOfMaximum(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.causal(x) * int(x.max() * 3 + 4)


class BranchOnMaximum(Base):
    def forward(self, x: Tensor) -> Tensor:
        return -self.causal(x) if x.max() > 0.5 else self.causal(x)


class BranchOnEquality(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.causal(x) * (2 if torch.equal(x, torch.full_like(x, 1 / 3)) else 1)


class SliceByPixel(Base):
    def forward(self, x: Tensor) -> Tensor:
        first = int(((x[0, 0, 0, 0] + 1) * 1.5).round())
        return torch.cat([self.causal(x)] * 2, dim=1)[:, first : first + 4]


class ThroughNumpy(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.causal(x) * (1 + torch.from_numpy(np.roll(x.detach().numpy() == 0.25, -1, 3).astype(np.float32)))


@pytest.mark.parametrize(
    "model", [FactorOfMaximum, BranchOnMaximum, BranchOnEquality, ThroughNumpy], ids=lambda m: m.__name__
)
def test_numbers_of_the_image_read_into_python(model: type[Base]) -> None:
    with pytest.raises(pixelfast.UnsupportedModelError, match=r"frozen|depends on the image"):
        pixelfast.compile(model(), (1, 4, 5), CATEGORICAL, "signed")


def test_a_pixel_of_the_first_image_read_into_python() -> None:
    """Frozen, and read by every image of a batch: this is said, with the place."""
    with pytest.raises(pixelfast.CausalityError, match=r"mix across the batch at aten.select \(test_frozen.py"):
        pixelfast.compile(SliceByPixel(), (1, 4, 5), CATEGORICAL, "signed")


class ConditionItem(Base):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.causal(x) * (c[0].item() + 1)


class ConditionBranch(Base):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.causal(x) * 2 if c[0] > 0 else self.causal(x)


@pytest.mark.parametrize("model", [ConditionItem, ConditionBranch], ids=lambda m: m.__name__)
def test_numbers_of_the_condition_read_into_python(model: type[Base]) -> None:
    with pytest.raises(pixelfast.UnsupportedModelError, match="a number of the condition"):
        pixelfast.compile(model(), (1, 4, 5), CATEGORICAL, "signed", condition=torch.zeros(1))


class MixedConditions(Base):
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.causal(x) * (1 + c - c.mean(0, keepdim=True))[:, None, None, None]


def test_conditions_that_mix_across_the_batch() -> None:
    with pytest.raises(pixelfast.CausalityError, match="mix across the batch"):
        pixelfast.compile(MixedConditions(), (1, 4, 5), CATEGORICAL, "signed", condition=torch.zeros(1))


class MaskedClass(Base):
    """Three classes and one that can never be drawn, which hides nothing of the others."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.causal(x)[:, :3]
        return torch.cat([self.spoil(h), torch.full_like(h[:, :1], -1e9)], dim=1)

    def spoil(self, h: Tensor) -> Tensor:
        return h


class MaskedClassMixed(MaskedClass):
    def spoil(self, h: Tensor) -> Tensor:
        return h + h[:1]


class MaskedClassWrapped(MaskedClass):
    def spoil(self, h: Tensor) -> Tensor:
        return (h * 50).to(torch.uint8).to(h.dtype) / 50


def test_a_masked_class_is_no_hindrance() -> None:
    model = MaskedClass()
    sampler = pixelfast.compile(model, (1, 4, 5), CATEGORICAL, "signed")
    assert int(sampler.sample(50).max()) <= 2


@pytest.mark.parametrize("model", [MaskedClassMixed, MaskedClassWrapped], ids=lambda m: m.__name__)
def test_a_masked_class_hides_no_error(model: type[Base]) -> None:
    with pytest.raises(pixelfast.PixelfastError):
        pixelfast.compile(model(), (1, 4, 5), CATEGORICAL, "signed")


class SumOfTruths(nn.Module):
    """True + True is True."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(1, 256, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, before = F.pad(x, (1, 0))[..., :-1], F.pad(x, (2, 0))[..., :-2]
        return self.head(((left == 17) + (before == 17)).to(self.head.weight.dtype))


class LastRowOfTable(nn.Module):
    """Index -1 is the last row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(256, 4))
        self.head = nn.Conv2d(4, 256, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.pad(self.table[x - 1][:, 0].permute(0, 3, 1, 2), (1, 0))[..., :-1])


@pytest.mark.parametrize(("model", "level"), [(SumOfTruths, 17), (LastRowOfTable, 0)], ids=["truths", "last row"])
def test_integer_semantics(model: type[nn.Module], level: int) -> None:
    module = model().double()
    sampler = pixelfast.compile(
        module, (1, 3, 3), pixelfast.Categorical(256), "levels", backend="reference", dtype=torch.float64
    )
    x = torch.full((1, 1, 3, 3), level)
    with torch.no_grad():
        assert float((sampler.params(x) - module(x)).abs().max()) < 1e-12


class SharedBuffer(Base):
    """One half of a buffer from the condition, the other from the image."""

    def __init__(self) -> None:
        super().__init__()
        self.style = nn.Linear(3, 2, bias=False)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        both = torch.zeros(len(x), 6, 4, 5, dtype=x.dtype)
        both[:, :2] = self.style(c)[:, :, None, None]
        both[:, 2:] = self.causal(x)
        return self.head(both)


def test_a_buffer_shared_by_condition_and_image() -> None:
    model = SharedBuffer().double()
    zeros = torch.zeros(1, 3, dtype=torch.float64)
    sampler = pixelfast.compile(
        model, (1, 4, 5), CATEGORICAL, "signed", condition=zeros, backend="reference", dtype=torch.float64
    )
    x, c = torch.randint(4, (4, 1, 4, 5)), torch.randn(4, 3, dtype=torch.float64)
    with torch.no_grad():
        assert float((sampler.params(x, c) - model(x.double() * 2 / 3 - 1, c)).abs().max()) < 1e-12


def test_plain_numbers_of_a_condition_stay_what_they_were() -> None:
    class Scaled(Base):
        def forward(self, x: Tensor, c: Tensor, k: float) -> Tensor:
            return self.causal(x) * k + c[:, None, None, None]

    sampler = pixelfast.compile(Scaled(), (1, 4, 5), CATEGORICAL, "signed", condition=(torch.ones(1), 3.0))
    sampler.sample(2, condition=(torch.ones(2), 3.0))
    with pytest.raises(pixelfast.ShapeError, match=r"7\.0.*3\.0"):
        sampler.sample(2, condition=(torch.ones(2), 7.0))
