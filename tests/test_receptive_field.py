"""Receptive fields followed through the graph, against gradients; the picture; bad positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gallery.causal import MaskedConv
from PIL import Image
from torch import nn

import pixelfast
from pixelfast import Categorical, PixelfastError, ShapeError
from pixelfast.models import GatedPixelCNN, PixelCNNPlusPlus, PixelRNN
from pixelfast.receptive_field import CELL, COLOURS


def single_stack(layers: int) -> nn.Module:
    """Masked convolutions on top of each other: the first PixelCNN, with its blind spot."""
    torch.manual_seed(0)
    hidden = [layer for _ in range(layers) for layer in (MaskedConv("B", 4, 4), nn.Tanh())]
    return nn.Sequential(MaskedConv("A", 1, 4), nn.Tanh(), *hidden)


def by_gradients(model: nn.Module, row: int, column: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Inputs with a gradient, for any of several images."""
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(8, *shape, generator=generator, dtype=torch.float64) * 2 - 1).requires_grad_()
    out = model.double()(x)
    (gradient,) = torch.autograd.grad(out[..., row, column].square().sum(), x)
    return (gradient != 0).any(dim=0).numpy()


@pytest.mark.parametrize("at", [(5, 4), (0, 0), (7, 8), (3, 0)])
def test_equals_the_gradients_of_a_single_stack(at: tuple[int, int]):
    model = single_stack(3)
    report = pixelfast.check_causality(model, (1, 8, 9), Categorical(4), input="signed")
    field = report.receptive_field(*at)
    assert field.shape == (1, 8, 9)
    np.testing.assert_array_equal(field, by_gradients(model, *at, (1, 8, 9)))


def test_single_stack_has_a_blind_spot_and_two_stacks_have_none():
    """Two rows up, three columns to the right of the pixel: no path of masked 3x3 convolutions leads there."""
    single = pixelfast.check_causality(single_stack(6), (1, 8, 9), Categorical(4), input="signed")
    assert not single.receptive_field(6, 4)[0, 5, 6]
    assert not single.receptive_field(6, 4)[0, 4, 7:].any()
    gated = GatedPixelCNN((1, 8, 9), levels=4, hidden=8, dilations=(1,) * 8).eval()
    field = pixelfast.check_causality(gated).receptive_field(6, 4)[0]
    before = np.arange(72).reshape(8, 9) < 6 * 9 + 4
    np.testing.assert_array_equal(field, before)


def test_channels_of_a_pixel_are_told_apart():
    torch.manual_seed(0)
    model = PixelCNNPlusPlus((3, 8, 8), blocks=1, filters=4, mixtures=2).eval()
    report = pixelfast.check_causality(model)
    field = report.receptive_field(4, 4)
    np.testing.assert_array_equal(field, by_gradients(model, 4, 4, (3, 8, 8)))


@pytest.mark.parametrize("kind", ["row_lstm", "diagonal_bilstm"])
def test_through_a_recurrence(kind: str):
    torch.manual_seed(0)
    model = PixelRNN((1, 7, 6), kind, levels=2, layers=2, hidden=4, features=8, head=32).eval()
    for at in ((5, 2), (3, 5)):
        field = pixelfast.check_causality(model.float()).receptive_field(*at)
        generator = torch.Generator().manual_seed(1)
        x = torch.rand(32, 1, 7, 6, generator=generator, dtype=torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(model.double()(x)[..., at[0], at[1]].square().sum(), x)
        np.testing.assert_array_equal(field, (gradient != 0).any(dim=0).numpy())


def test_leak_is_drawn_in_red(tmp_path: Path):
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1))
    report = pixelfast.check_causality(model, (1, 6, 5), Categorical(4), input="signed")
    assert not report.causal
    report.plot(tmp_path / "leak.png", 2, 2)
    picture = Image.open(tmp_path / "leak.png").convert("RGB")

    def colour(row: int, column: int) -> tuple[int, ...]:
        return picture.getpixel((column * CELL + CELL // 2, row * CELL + CELL // 2))

    assert colour(2, 2) == COLOURS["the pixel"]
    assert colour(1, 1) == COLOURS["read"]
    assert colour(0, 0) == COLOURS["known, not read"]
    assert colour(3, 3) == COLOURS["read, not known"]
    assert colour(5, 4) == COLOURS["not known"]


def test_middle_is_the_default(tmp_path: Path):
    report = pixelfast.check_causality(single_stack(1), (1, 8, 9), Categorical(4), input="signed")
    np.testing.assert_array_equal(report.receptive_field(), report.receptive_field(4, 4))


def test_position_outside_the_image():
    report = pixelfast.check_causality(single_stack(1), (1, 8, 9), Categorical(4), input="signed")
    for at in ((8, 0), (0, 9), (-1, 0)):
        with pytest.raises(ShapeError, match=r"no pixel at row .* of an image of 8 x 9"):
            report.receptive_field(*at)


def test_images_that_mix_have_no_field():
    class Mixing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.pad(x.mean(0, keepdim=True).expand_as(x), (0, 0, 0, 0, 0, 3))

    report = pixelfast.check_causality(Mixing(), (1, 4, 4), Categorical(4), input="signed")
    assert not report.causal
    with pytest.raises(PixelfastError, match="mix across the batch"):
        report.receptive_field()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from pixelfast.cli.main import main

    path = tmp_path / "field.png"
    assert main(["models", "gated-pixelcnn-mnist", "--receptive-field", str(path), "--at", "14", "10"]) == 0
    assert "the pixel reads" in capsys.readouterr().out
    assert Image.open(path).size[0] == 28 * CELL + 1
    assert main(["models", "--receptive-field", str(path)]) != 0
    assert "give the MODEL" in capsys.readouterr().err
    assert main(["models", "gated-pixelcnn-mnist", "--at", "1", "1"]) != 0
