"""Sampling draws from the model's own distribution: chi-square at a million draws, with negative controls.

Every check that must pass is accompanied by a flaw that must fail it, by the same test at the same number of
draws. Probabilities come from the definition of the likelihood in numpy float64, not from `pmf`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from chi_square import chi_square_p, merge
from scipy.special import expit
from scipy.stats import kstest

from pixelfast import rng
from pixelfast.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogisticMixture,
    Likelihood,
    PixelState,
)

DRAWS = 1_000_000
PASS = 1e-4


def blocks(channels: int, draws: int, block: int, total: int = DRAWS) -> Iterator[torch.Tensor]:
    """Noise of pixel 0 of images 0 .. total - 1, as float64 (block, channels, draws)."""
    for start in range(0, total, block):
        yield rng.uniforms(2024, range(start, min(start + block, total)), range(channels), draws)


def draw_pixels(
    likelihood: Likelihood,
    params: torch.Tensor,
    channels: int,
    *,
    given: dict[int, int] | None = None,
    temperature: float = 1.0,
    mode: str = "exact",
    spoil: Callable[[torch.Tensor], torch.Tensor] = lambda u: u,
    block: int = 50_000,
    total: int = DRAWS,
) -> np.ndarray:
    """Counts of every combination of levels, (levels,) * channels, of `total` pixels with parameters (P,).

    Args:
        given: channel -> level of the channels that are known.
        spoil: changes the noise; for negative controls.
    """
    given = given or {}
    counts = np.zeros((likelihood.levels,) * channels, dtype=np.int64)
    for noise in blocks(channels, likelihood.draws(channels), block, total):
        noise = spoil(noise)
        pixel = PixelState.start(len(noise), channels)
        for channel, needed in enumerate(likelihood.needs(channels)):
            own = params[needed].expand(len(noise), -1)
            value = likelihood.draw(channel, own, pixel, noise[:, channel], temperature, mode)
            if channel in given:
                value = torch.full_like(value, given[channel])
                pixel.known[:, channel] = True
            pixel.values[:, channel] = value
        levels = pixel.values.round().long().numpy()
        index = np.ravel_multi_index(tuple(levels.T), counts.shape)
        counts += np.bincount(index, minlength=counts.size).reshape(counts.shape)
    return counts


def bin_masses(means: np.ndarray, scales: np.ndarray, levels: int) -> np.ndarray:
    """Mass of every level's bin under logistics of these means and scales (...), as (..., levels)."""
    edges = (2 * np.arange(1, levels) - levels) / (levels - 1)
    z = (edges - means[..., None]) / scales[..., None]
    # Each difference is taken on the side of the mean where the sigmoids are small.
    below = np.concatenate([np.zeros_like(means)[..., None], expit(z), np.ones_like(means)[..., None]], -1)
    above = np.concatenate([np.ones_like(means)[..., None], expit(-z), np.zeros_like(means)[..., None]], -1)
    return np.where(below[..., 1:] < 0.5, np.diff(below), -np.diff(above))


class Mixture:
    """A mixture for one pixel of one or three channels, with its distribution enumerated."""

    def __init__(self, logits, means, log_scales, coefficients, levels):
        self.logits, self.means, self.log_scales = (np.array(v, float) for v in (logits, means, log_scales))
        self.coefficients = None if coefficients is None else np.array(coefficients, float)
        self.levels, self.channels = levels, len(means)
        self.likelihood = DiscretizedLogisticMixture(mixtures=len(logits), levels=levels)

    def params(self) -> torch.Tensor:
        parts = [self.means, self.log_scales]
        parts += [] if self.coefficients is None else [self.coefficients]
        blocks = np.stack(parts, axis=1).reshape(-1)
        return torch.from_numpy(np.concatenate([self.logits, blocks]))

    def without(self, component: int) -> torch.Tensor:
        params = self.params()
        params[component] = -np.inf
        return params

    def joint(self, temperature: float = 1.0) -> np.ndarray:
        """p(x_0, .., x_{C-1}), (levels,) * C, by enumeration."""
        weights = np.exp(self.logits / temperature)
        weights /= weights.sum()
        scales = np.exp(np.maximum(self.log_scales, -7)) * temperature
        x = 2 * np.arange(self.levels) / (self.levels - 1) - 1
        total = 0.0
        for k, weight in enumerate(weights):
            mass = weight * bin_masses(self.means[0][k], scales[0][k], self.levels)
            if self.channels == 3:
                c0, c1, c2 = np.tanh(self.coefficients[:, k])
                green = bin_masses(self.means[1][k] + c0 * x, np.full_like(x, scales[1][k]), self.levels)
                centres = self.means[2][k] + c1 * x[:, None] + c2 * x[None, :]
                blue = bin_masses(centres, np.full_like(centres, scales[2][k]), self.levels)
                mass = mass[:, None, None] * green[:, :, None] * blue
            total = total + mass
        return total


def p_value(counts: np.ndarray, probabilities: np.ndarray) -> float:
    probabilities = probabilities.ravel()
    return chi_square_p(counts.ravel(), probabilities / probabilities.sum())


# ---------------------------------------------------------------- the comparator


def test_comparator_on_an_example_worked_by_hand():
    # (44-50)^2/50 + (28-25)^2/25 + (28-25)^2/25 = 1.44; exp(-0.72) is the tail of chi-square with 2 degrees.
    p = chi_square_p(np.array([44, 28, 28]), np.array([0.5, 0.25, 0.25]))
    assert p == pytest.approx(np.exp(-0.72))


def test_comparator_merges_small_bins_with_their_neighbours():
    counts, expected = merge(np.array([1, 2, 3, 9, 0, 1]), np.array([2.0, 2.5, 3.0, 6.0, 1.0, 2.0]))
    assert counts.tolist() == [6, 10]
    assert expected.tolist() == [7.5, 9.0]
    counts, expected = merge(np.array([7, 1, 1]), np.array([4.0, 1.0, 8.0]))
    assert counts.tolist() == [8, 1]
    assert expected.tolist() == [5.0, 8.0]


def test_comparator_has_uniform_p_values_under_the_null():
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet(np.full(40, 0.5))
    ps = [chi_square_p(generator.multinomial(20_000, probabilities), probabilities) for _ in range(1000)]
    assert kstest(ps, "uniform").pvalue > 1e-3


def test_comparator_sees_a_small_shift():
    generator = np.random.default_rng(2)
    probabilities = generator.dirichlet(np.full(40, 5.0))
    shifted = probabilities * np.where(np.arange(40) % 2, 1.01, 0.99)
    counts = generator.multinomial(DRAWS, shifted / shifted.sum())
    assert chi_square_p(counts, probabilities) < PASS


def test_comparator_never_forgives_the_impossible():
    assert chi_square_p(np.array([500_000, 500_000, 1]), np.array([0.5, 0.5, 0.0])) == 0
    assert chi_square_p(np.array([500_000, 500_000, 0]), np.array([0.5, 0.5, 0.0])) > PASS


@pytest.mark.parametrize(
    ("counts", "probabilities"),
    [
        ([5, 5], [0.5, 0.4]),
        ([5, 5], [1.5, -0.5]),
        ([5, 5, 5], [0.5, 0.5]),
        ([1, 1], [0.5, 0.5]),
        ([[50, 50]], [[0.5, 0.5]]),
    ],
)
def test_comparator_refuses_a_comparison_that_means_nothing(counts, probabilities):
    with pytest.raises(ValueError, match=r"sum to 1|must be|two bins"):
        chi_square_p(np.array(counts), np.array(probabilities))


# ---------------------------------------------------------------- one number, 256 levels

GREY = Mixture(
    logits=[0.5, -0.2, -4.0, 0.1],
    means=[[-0.3, 0.62, 0.2, 1.05]],
    log_scales=[[-3.0, -4.2, -2.0, -7.5]],
    coefficients=None,
    levels=256,
)


def test_mixture_of_256_levels():
    counts = draw_pixels(GREY.likelihood, GREY.params(), 1)
    assert p_value(counts, GREY.joint()) > PASS


@pytest.mark.parametrize(
    "flaw",
    [{"temperature": 1.05}, {"params": GREY.without(2)}],
    ids=["temperature 1.05", "dropped component"],
)
def test_a_flawed_mixture_of_256_levels_fails(flaw):
    arguments = {"params": GREY.params(), **flaw}
    assert p_value(draw_pixels(GREY.likelihood, channels=1, **arguments), GREY.joint()) < PASS


# Truncation at 1e-5 shows in what is rarer than that: the tails of a logistic over many levels, and classes
# of probability 4e-6, of which there are enough for some of them to occur.
TAILS = Mixture(logits=[0.0], means=[[0.1]], log_scales=[[-3.2]], coefficients=None, levels=256)
RARE = torch.tensor([0.0] + 63 * [-12.5], dtype=torch.float64)


def truncate(uniforms: torch.Tensor) -> torch.Tensor:
    return uniforms.clamp(1e-5, 1 - 1e-5)


def test_tails_of_one_logistic():
    counts = draw_pixels(TAILS.likelihood, TAILS.params(), 1, total=4 * DRAWS)
    assert p_value(counts, TAILS.joint()) > PASS
    counts = draw_pixels(TAILS.likelihood, TAILS.params(), 1, total=4 * DRAWS, spoil=truncate)
    assert p_value(counts, TAILS.joint()) < PASS


def test_rare_classes():
    counts = draw_pixels(Categorical(levels=64), RARE, 1, block=2000)
    assert p_value(counts, np.exp(RARE.numpy())) > PASS
    counts = draw_pixels(Categorical(levels=64), RARE, 1, block=2000, spoil=truncate)
    assert p_value(counts, np.exp(RARE.numpy())) < PASS


def test_categorical_of_256_levels():
    logits = 2 * torch.randn(256, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logits[[0, 17, 255]] = -torch.inf
    weights = np.exp(logits.numpy())
    counts = draw_pixels(Categorical(), logits, 1, block=500)
    assert p_value(counts, weights) > PASS


# ---------------------------------------------------------------- a few levels: every joint outcome

FEW = torch.tensor([0.3, -1.0, 0.0, 0.9, -4.5, -0.5, 0.2, 0.4], dtype=torch.float64)


def few_probabilities(logits: torch.Tensor) -> np.ndarray:
    """Two independent channels of four levels."""
    first, second = (np.exp(logits[part].numpy()) for part in (slice(0, 4), slice(4, 8)))
    return np.outer(first, second)


def test_categorical_of_few_levels_jointly():
    counts = draw_pixels(Categorical(levels=4), FEW, 2)
    assert p_value(counts, few_probabilities(FEW)) > PASS
    counts = draw_pixels(Categorical(levels=4), FEW, 2, temperature=0.6)
    assert p_value(counts, few_probabilities(FEW / 0.6)) > PASS


@pytest.mark.parametrize(
    "flaw",
    [{"temperature": 1.05}, {"params": torch.where(FEW < -4, -torch.inf, FEW)}],
    ids=["temperature 1.05", "dropped class"],
)
def test_a_flawed_categorical_fails(flaw):
    counts = draw_pixels(Categorical(levels=4), channels=2, **{"params": FEW, **flaw})
    assert p_value(counts, few_probabilities(FEW)) < PASS


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_bernoulli(temperature):
    logits = torch.tensor([-2.0, 0.3], dtype=torch.float64)
    first, second = expit(logits.numpy() / temperature)
    joint = np.outer([1 - first, first], [1 - second, second])
    assert p_value(draw_pixels(Bernoulli(), logits, 2, temperature=temperature), joint) > PASS
    assert p_value(draw_pixels(Bernoulli(), logits, 2, temperature=1.05 * temperature), joint) < PASS


# The components have different means everywhere, so that it matters that the channels share them. Narrow
# scales make it matter, too, whether a channel is rounded before the next one sees it.
COLOUR = Mixture(
    logits=[0.4, -0.3, -2.5],
    means=[[-0.5, 0.4, 0.9], [0.3, -0.6, -0.1], [0.2, 0.7, -0.9]],
    log_scales=[[-2.0, -1.5, -1.0], [-1.7, -2.2, -1.0], [-2.1, -1.8, -1.4]],
    coefficients=[[0.9, -0.7, 0.3], [0.5, 0.4, -1.1], [-0.8, 1.2, 0.2]],
    levels=6,
)


def test_colour_jointly():
    counts = draw_pixels(COLOUR.likelihood, COLOUR.params(), 3)
    joint = COLOUR.joint()
    assert joint.sum() == pytest.approx(1)
    assert p_value(counts, joint) > PASS
    assert p_value(counts.sum(2), joint.sum(2)) > PASS


FLAWS = {
    "late rounding": {"mode": "reference"},
    "temperature 1.05": {"temperature": 1.05},
    "dropped component": {"params": COLOUR.without(2)},
}


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS.keys())
def test_a_flawed_colour_sampler_fails_on_pairs(flaw):
    counts = draw_pixels(COLOUR.likelihood, channels=3, **{"params": COLOUR.params(), **flaw})
    joint = COLOUR.joint()
    assert p_value(counts.sum(2), joint.sum(2)) < PASS
    assert p_value(counts, joint) < PASS


def test_a_component_per_channel_fails():
    """Sharing the component is what couples the channels: choosing it anew for each must be seen."""
    params = COLOUR.params().expand(50_000, -1)
    counts = np.zeros((6, 6), dtype=np.int64)
    for noise in blocks(3, 4, 50_000):
        pixel = PixelState.start(len(noise), 3)
        pixel.values[:, 0] = COLOUR.likelihood.draw(0, params, pixel, noise[:, 0])
        COLOUR.likelihood.draw(0, params, pixel, noise[:, 2])
        green = COLOUR.likelihood.draw(1, params, pixel, noise[:, 1])
        np.add.at(counts, (pixel.values[:, 0].long().numpy(), green.long().numpy()), 1)
    assert p_value(counts, COLOUR.joint().sum(2)) < PASS


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_colour_with_temperature(temperature):
    counts = draw_pixels(COLOUR.likelihood, COLOUR.params(), 3, temperature=temperature)
    assert p_value(counts, COLOUR.joint(temperature)) > PASS


# ---------------------------------------------------------------- channels that are given


def given_joint(given: dict[int, int], temperature: float = 1.0) -> np.ndarray:
    """Distribution of the pixel when given channels are set and the others follow what precedes them."""
    joint = COLOUR.joint(temperature)
    result = np.ones_like(joint)
    for channel in range(3):
        marginal = joint.sum(tuple(range(channel + 1, 3)), keepdims=True)
        if channel in given:
            indicator = np.zeros(COLOUR.levels)
            indicator[given[channel]] = 1
            result = result * indicator.reshape([-1 if axis == channel else 1 for axis in range(3)])
        else:
            result = result * marginal / marginal.sum(channel, keepdims=True)
    return result


GIVEN = [{0: 4}, {1: 1}, {0: 0, 1: 5}, {0: 2, 2: 3}, {2: 0}]


@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_the_rest_follows_from_given_channels(given):
    counts = draw_pixels(COLOUR.likelihood, COLOUR.params(), 3, given=given)
    assert p_value(counts, given_joint(given)) > PASS


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_rest_follows_from_given_channels_at_a_temperature(temperature):
    counts = draw_pixels(COLOUR.likelihood, COLOUR.params(), 3, given={0: 4}, temperature=temperature)
    assert p_value(counts, given_joint({0: 4}, temperature)) > PASS


@pytest.mark.parametrize("given", GIVEN[:3], ids=str)
def test_keeping_a_component_chosen_before_the_given_channel_fails(given):
    """The posterior matters: with the redraw turned off the same test fails."""
    params = COLOUR.params()
    counts = np.zeros((6, 6, 6), dtype=np.int64)
    for noise in blocks(3, 4, 50_000):
        pixel = PixelState.start(len(noise), 3)
        for channel in range(3):
            own = params.expand(len(noise), -1)
            value = COLOUR.likelihood.draw(channel, own, pixel, noise[:, channel])
            pixel.values[:, channel] = given.get(channel, value)
        np.add.at(counts, tuple(pixel.values.long().numpy().T), 1)
    assert p_value(counts, given_joint(given)) < PASS


def test_given_channels_of_one_image_leave_the_others_alone():
    likelihood, params = COLOUR.likelihood, COLOUR.params().expand(64, -1)
    noise = next(blocks(3, 4, 64))
    known = torch.arange(64) % 2 == 0

    def draw(known_red: torch.Tensor) -> torch.Tensor:
        pixel = PixelState.start(64, 3)
        pixel.known[:, 0] = known_red
        for channel in range(3):
            value = likelihood.draw(channel, params, pixel, noise[:, channel])
            pixel.values[:, channel] = torch.where(pixel.known[:, channel], 5.0, value)
        return pixel.values

    mixed, none, every = draw(known), draw(torch.zeros_like(known)), draw(torch.ones_like(known))
    assert torch.equal(mixed[~known], none[~known])
    assert torch.equal(mixed[known], every[known])
    assert not torch.equal(none[known], every[known])


def test_at_temperature_zero_the_rest_follows_the_most_probable_component():
    joint = np.zeros(3)
    weights = np.exp(COLOUR.logits)
    for red in range(6):
        for k in range(3):
            scale = np.exp(COLOUR.log_scales[0][k])
            joint[k] = weights[k] * bin_masses(COLOUR.means[0][k], scale, 6)[red]
        k = joint.argmax()
        pixel = PixelState.start(1, 3)
        pixel.values[:, 0], pixel.known[:, 0] = red, True
        green = COLOUR.likelihood.draw(
            1, COLOUR.params()[None], pixel, torch.full((1, 4), 0.5, dtype=torch.float64), 0.0
        )
        mean = COLOUR.means[1][k] + np.tanh(COLOUR.coefficients[0][k]) * (2 * red / 5 - 1)
        assert pixel.component.item() == k
        assert green.item() == np.clip(np.round((mean + 1) * 2.5), 0, 5)


def test_the_oracle_sums_to_one_and_agrees_with_log_prob():
    """The oracle and the library define the same distribution, so that a pass above means something."""
    everything = torch.tensor(list(itertools.product(range(6), repeat=3))).view(216, 3, 1, 1)
    params = COLOUR.params().view(1, -1, 1, 1).expand(216, -1, 1, 1)
    log_prob = COLOUR.likelihood.log_prob(params, everything).sum((1, 2, 3))
    assert np.abs(log_prob.exp().numpy() - COLOUR.joint().ravel()).max() < 1e-14
    pmf = GREY.likelihood.pmf(GREY.params().view(1, -1, 1, 1)).flatten().numpy()
    assert np.abs(pmf - GREY.joint()).max() < 1e-14
