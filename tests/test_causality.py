"""Leaks are refused, with operation, output and input named; what only looks like a leak is not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gallery import IDIOMS
from gallery.causal import MaskedConv
from gallery.colours import GroupConv
from torch import Tensor, nn

import pixelfast
from pixelfast import Bernoulli, Categorical, CausalityError

FOUR = {"shape": (1, 4, 5), "likelihood": Categorical(4), "input": "signed"}


def report(model: nn.Module, **changes: object) -> pixelfast.CausalityReport:
    """The report; `compile` must agree with it word for word."""
    torch.manual_seed(0)
    found = pixelfast.check_causality(model, **(FOUR | changes))
    if found.causal:
        pixelfast.compile(model, backend="reference", **(FOUR | changes))
    else:
        with pytest.raises(CausalityError) as caught:
            pixelfast.compile(model, **(FOUR | changes))
        assert str(caught.value) == found.message
        assert "\n" not in found.message
    return found


def names(found: pixelfast.CausalityReport) -> bool:
    """Whether the message says the positions that the report holds."""
    positions = [
        f"channel {channel}, row {row}, column {column}" for channel, row, column in (found.output, found.reads)
    ]
    return all(position in found.message for position in positions)


# -- leaks ---------------------------------------------------------------------------------------------------


def test_centre_let_through_in_the_first_layer():
    found = report(nn.Sequential(MaskedConv("B", 1, 4), nn.ReLU(), MaskedConv("B", 4, 4)))
    assert not found.causal
    assert found.output == found.reads == (0, 0, 0)
    assert "convolution (0, causal.py:" in found.operation
    assert names(found)


def test_mask_that_leaves_the_row_below():
    conv = MaskedConv("A", 1, 4)
    conv.mask[..., 2, 0] = 1
    found = report(nn.Sequential(conv, nn.ReLU(), MaskedConv("B", 4, 4)))
    assert (found.output, found.reads) == ((0, 0, 1), (0, 1, 0))
    assert "convolution (0, causal.py:" in found.operation
    assert names(found)


def test_mask_that_leaves_the_next_pixel_deep_in_the_network():
    conv = MaskedConv("B", 4, 4)
    conv.mask[..., 1, 2] = 1
    stem = MaskedConv("A", 1, 4)
    found = report(nn.Sequential(stem, nn.ReLU(), conv, nn.ReLU(), MaskedConv("B", 4, 4)))
    assert (found.output, found.reads) == ((0, 0, 0), (0, 0, 0))
    assert "convolution (2, causal.py:" in found.operation


def test_a_single_weight():
    conv = MaskedConv("A", 1, 4)
    full = conv.mask.repeat(4, 1, 1, 1)
    full[3, 0, 1, 1] = 1
    conv.mask = full
    found = report(nn.Sequential(conv, nn.Tanh(), nn.Conv2d(4, 4, 1)))
    assert found.output == found.reads == (0, 0, 0)


def test_leak_that_no_output_reads_is_none():
    class Unread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leaky = MaskedConv("B", 1, 4)
            self.head = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.leaky(x)
            return self.head(F.pad(h, (1, -1)))

    assert report(Unread()).causal


def test_green_reads_blue():
    thirds = torch.arange(3)
    model = nn.Sequential(
        GroupConv("A", thirds, thirds, 3),
        nn.ReLU(),
        GroupConv("B", thirds, thirds.repeat(3), 1),
        nn.Unflatten(1, (3, 3)),
    )
    arguments = {"shape": (3, 3, 4), "likelihood": Categorical(3)}
    assert report(model, **arguments).causal
    model[0].mask[1, 2, 1, 1] = 1
    found = report(model, **arguments)
    assert (found.output, found.reads) == ((1, 0, 0), (2, 0, 0))
    assert names(found)


def test_mixture_may_not_read_its_own_pixel():
    """Its parameters are all drawn on at once, so R's value may not enter G's."""
    thirds = torch.arange(3)
    conv = GroupConv("A", thirds, thirds.repeat(4)[:10], 3)
    arguments = {"shape": (3, 3, 4), "likelihood": pixelfast.DiscretizedLogisticMixture(1, 8)}
    found = report(conv, **arguments)
    assert (found.output, found.reads) == ((0, 0, 0), (1, 0, 0))


def test_wrong_order_of_levels_and_channels():
    """Groups that fit (N, levels, C, H, W) leak when the output is read as channels first."""
    thirds = torch.arange(3)
    model = nn.Sequential(
        GroupConv("A", thirds, thirds.repeat(3), 3), nn.Unflatten(1, (3, 3))
    )
    arguments = {"shape": (3, 2, 2), "likelihood": Categorical(3)}
    assert report(model, **arguments).causal
    found = report(model, outputs=lambda p: p.transpose(1, 2), **arguments)
    assert not found.causal
    assert found.output[0] < 2


@pytest.mark.parametrize(
    "norm",
    [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm([4, 4, 5]), nn.GroupNorm(1, 4, affine=False)],
    ids=["group norm", "instance norm", "layer norm over everything", "one group"],
)
def test_norms_over_positions(norm):
    found = report(nn.Sequential(MaskedConv("A", 1, 4), norm, nn.ReLU(), nn.Conv2d(4, 4, 1)))
    assert not found.causal
    assert found.output == (0, 0, 0)
    assert "norm" in found.operation
    assert names(found)


class SoftmaxOverPositions(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.stem = MaskedConv("A", 1, 4)
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return F.softmax(h.flatten(2), dim=-1).view_as(h) if self.dims == 2 else F.softmax(h, dim=-1)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("side", [4, 9])
def test_softmax_over_positions(dims, side):
    found = report(SoftmaxOverPositions(dims), shape=(1, side, side + 1))
    assert not found.causal
    assert found.output == (0, 0, 0)
    assert "softmax" in found.operation
    assert names(found)


def test_mean_over_positions_of_a_large_image():
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = F.pad(x, (1, -1))
            return h - h.mean(dim=(2, 3), keepdim=True)

    found = report(Centred(), shape=(1, 12, 13), likelihood=Bernoulli())
    assert not found.causal
    assert found.output == (0, 0, 0)
    assert "mean" in found.operation
    assert names(found)


def test_batch_statistics():
    model = nn.Sequential(
        MaskedConv("A", 1, 4), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.Conv2d(4, 4, 1)
    )
    found = report(model)
    assert not found.causal
    assert "batch_norm" in found.operation


def test_images_mix_across_the_batch():
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = MaskedConv("A", 1, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x)
            return h - h.mean(dim=0, keepdim=True)

    found = report(Mixing())
    assert not found.causal
    assert "images mix across the batch" in found.message
    assert "mean" in found.operation
    assert "row" in found.message and "column" in found.message


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_every_image_sees_the_first_one(strength: float):
    """Alone, and first in a batch, an image is as it should be."""

    class Following(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = F.pad(x, (1, -1))
            return h + strength * (h[:1] - h)

    found = report(Following(), likelihood=Bernoulli())
    assert not found.causal
    assert "images mix across the batch" in found.message
    assert "the output of image 1" in found.message


def test_only_the_first_image_sees_no_other():
    class Summing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.pad(x, (1, -1)).cumsum(0)

    found = report(Summing(), likelihood=Bernoulli())
    assert not found.causal
    assert "images mix across the batch" in found.message
    assert "the output of image 1" in found.message
    assert "cumsum" in found.operation


def test_images_mix_by_rolling_the_batch():
    class Rolling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.pad(x, (1, -1)) + F.pad(x.roll(1, dims=0), (1, -1))

    found = report(Rolling(), likelihood=Bernoulli())
    assert not found.causal
    assert "images mix across the batch" in found.message
    assert "roll" in found.operation


def test_upsampling_too_early():
    """A coarse feature that holds a whole square may not reach that square's first pixel."""

    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(1, 4, 2, stride=2)
            self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.down(F.pad(x, (1, -1))))

    found = report(Early(), shape=(1, 4, 6))
    assert (found.output, found.reads) == ((0, 0, 0), (0, 1, 0))


def test_other_orders_are_refused():
    """Column by column is causal in an order of its own, which is not the one sampled in."""

    class ColumnMajor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = MaskedConv("A", 1, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.transpose(2, 3)).transpose(2, 3)

    found = report(ColumnMajor())
    assert (found.output, found.reads) == ((0, 0, 1), (0, 1, 0))


# -- what is no leak -----------------------------------------------------------------------------------------


def test_masked_weights_need_no_mask():
    """Zeros in the weight itself, no mask anywhere."""
    conv = nn.Conv2d(1, 4, 3, padding=1)
    with torch.no_grad():
        conv.weight[:, :, 1, 1:] = 0
        conv.weight[:, :, 2] = 0
    assert report(conv).causal


def test_product_with_a_constant_zero_carries_nothing():
    class Muted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.causal = MaskedConv("A", 1, 4)
            self.leaky = nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.causal(x) + self.leaky(x) * torch.zeros(1, 4, 1, 1)

    assert report(Muted()).causal


def test_accidental_zeros_are_noted():
    model = nn.Sequential(MaskedConv("A", 1, 4), nn.ReLU(), nn.Conv2d(4, 4, 1))
    nn.init.zeros_(model[2].weight)
    found = report(model)
    assert found.causal
    assert len(found.notes) == 1
    assert "convolution (2" in found.notes[0] and "zero" in found.notes[0]
    assert found.notes[0] in str(found)
    sampler = pixelfast.compile(model, backend="reference", **FOUR)
    assert sampler.notes == found.notes
    assert found.notes[0] in sampler.describe()


@pytest.mark.parametrize("name", ["two_stacks", "contiguous_groups", "transposed_conv", "tuple_of_conditions"])
def test_reports_of_causal_models(name):
    idiom = IDIOMS[name]
    found = pixelfast.check_causality(idiom.build(), condition=idiom.conditions(1), **idiom.arguments())
    assert found.causal
    assert found.notes == ()
    assert found.operation is found.output is found.reads is None
    assert str(found) == found.message == "causal: no output reads a number sampled later"
