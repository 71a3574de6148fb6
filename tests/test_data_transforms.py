"""Transforms of batches: what they compute, how they draw, and that a step can be repeated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_files import pixels
from scipy import stats

from pixelfast.data import HorizontalFlip, Quantise, StochasticBinarise, Threshold, Transform
from pixelfast.errors import PixelfastError

ALL: list[Transform] = [Threshold(), StochasticBinarise(), HorizontalFlip(), Quantise(32)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(pixels(*shape, seed=seed))


@pytest.mark.parametrize("transform", ALL, ids=str)
def test_a_step_repeats_and_its_images_stay(transform: Transform) -> None:
    images = batch(8, 3, 6, 5)
    before = images.clone()
    first = transform(images, 256, generator(3))
    torch.rand(100)  # the global generator plays no part
    assert torch.equal(transform(images, 256, generator(3)), first)
    assert torch.equal(images, before)
    assert first.dtype == torch.uint8 and first.shape == images.shape
    assert int(first.max()) < transform.levels_after(256)


@pytest.mark.parametrize("transform", [StochasticBinarise(), HorizontalFlip()], ids=str)
def test_other_steps_draw_other_noise(transform: Transform) -> None:
    images = batch(64, 1, 6, 5)
    assert not torch.equal(transform(images, 256, generator(1)), transform(images, 256, generator(2)))


def test_threshold() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert Threshold()(levels, 256, generator()).flatten().tolist() == [0] * 128 + [1] * 128
    assert Threshold(1)(levels, 256, generator()).sum() == 255
    assert Threshold(1).levels_after(2) == 2


def test_stochastic_binarisation_has_the_right_probabilities() -> None:
    """Chi-square over all 256 levels; the lowest and the highest are certain."""
    draws = 4000
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(draws, 1, 16, 16)
    ones = StochasticBinarise()(images, 256, generator()).double().sum(0).flatten().numpy()
    assert ones[0] == 0 and ones[255] == draws
    expected = draws * np.arange(256) / 255
    inner = slice(8, 248)  # where both outcomes are expected often enough for the approximation

    def p_value(expected: np.ndarray) -> float:
        variance = expected * (1 - expected / draws)
        return float(stats.chi2.sf((((ones - expected) ** 2) / np.maximum(variance, 1e-9))[inner].sum(), 240))

    assert p_value(expected) > 1e-4
    assert p_value(draws * (np.arange(256) + 2) / 257) < 1e-4  # the test sees level / 256 for level / 255 and the like


@pytest.mark.parametrize("levels", [2, 16])
def test_stochastic_binarisation_of_few_levels(levels: int) -> None:
    top = torch.full((4, 1, 8, 8), levels - 1, dtype=torch.uint8)
    assert StochasticBinarise()(top, levels, generator()).all()
    assert not StochasticBinarise()(torch.zeros_like(top), levels, generator()).any()


def test_flips_are_per_image_whole_and_even() -> None:
    images = batch(2000, 3, 2, 5)
    found = HorizontalFlip()(images, 256, generator())
    flipped = (found == images.flip(-1)).flatten(1).all(1)
    kept = (found == images).flatten(1).all(1)
    assert bool((flipped ^ kept).all())
    assert stats.binomtest(int(flipped.sum()), 2000).pvalue > 1e-4


@pytest.mark.parametrize("to", [2, 8, 32, 256])
def test_quantise_makes_levels_of_equal_width(to: int) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    found = Quantise(to)(levels, 256, generator()).flatten()
    assert found.tolist() == [level * to // 256 for level in range(256)]
    assert found.long().bincount().tolist() == [256 // to] * to


def test_quantise_to_an_odd_number() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    counts = Quantise(5)(levels, 256, generator()).flatten().long().bincount()
    assert counts.sum() == 256 and counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("transform", "levels"), [(Threshold(0), 256), (Threshold(256), 256), (Quantise(1), 256), (Quantise(17), 16)]
)
def test_transforms_that_do_not_fit(transform: Transform, levels: int) -> None:
    with pytest.raises(PixelfastError, match=str(levels - 1 if isinstance(transform, Threshold) else levels)):
        transform.levels_after(levels)


def test_transforms_follow_one_another() -> None:
    levels = 256
    for transform in (Quantise(16), HorizontalFlip(), StochasticBinarise()):
        levels = transform.levels_after(levels)
    assert levels == 2
